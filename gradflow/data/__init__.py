"""Readers of real data sets in their published file formats.

Nothing is downloaded. Each reader takes the folder of the files, checks them, and reports the
official source if a file is missing or damaged.
"""
