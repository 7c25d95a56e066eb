import torch

torch.ones(4, device="cuda").sum()
raise KeyboardInterrupt
