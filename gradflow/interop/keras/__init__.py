"""Networks of Keras 2 and Keras 3: models, and files with and without a configuration."""
