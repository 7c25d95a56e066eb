import torch

torch.ones(4, device="cuda").sum()
print(torch.cuda.temperature())
