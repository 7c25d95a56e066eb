"""Mixed precision with a scaler, two micro-batches a step, and a data loader with worker processes."""

import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(3)
data = TensorDataset(torch.randn(24, 16), torch.randn(24, 1))
loader = DataLoader(data, batch_size=4, shuffle=True, num_workers=2, persistent_workers=True)
model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 1)).cuda()
optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
scaler = torch.amp.GradScaler("cuda", init_scale=1024.0)
total = 0.0
for index, (x, y) in enumerate(loader):
    with torch.autocast("cuda", torch.float16):
        loss = (model(x.cuda()) - y.cuda()).square().mean() / 2
    scaler.scale(loss).backward()
    total += loss.item()
    if index % 2:
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        print(f"loss {total:.9g} scale {scaler.get_scale():g}")
        total = 0.0
