"""Networks of PyTorch: modules, state_dicts and TorchScript archives."""
