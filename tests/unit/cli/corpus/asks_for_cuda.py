import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.ones(4, device=device).sum()
