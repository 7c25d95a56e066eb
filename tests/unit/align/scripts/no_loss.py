import torch

model = torch.nn.Linear(4, 4).cuda()
print(model(torch.ones(2, 4).cuda()).sum().item())
