"""Real data as arrays, from the files in which they are published: one module a format.

Nothing is fetched. Each reader takes the folder of the files, checks them, and names their official
source where one is missing or damaged.
"""
