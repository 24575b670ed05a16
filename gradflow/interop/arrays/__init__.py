"""Networks in files of named arrays: safetensors and NumPy archives."""
