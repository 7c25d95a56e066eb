"""Deep Q-learning: actions steer the environment, batches come from memory, boolean masks pick targets."""

import random
from collections import deque

import torch
from torch import nn

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
policy = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2)).to(device)
target = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2)).to(device)
target.load_state_dict(policy.state_dict())
optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4, amsgrad=True)
memory = deque(maxlen=100)
state = torch.tensor([0.1, 0.2, 0.3, 0.4], device=device).unsqueeze(0)
for step in range(30):
    if random.random() > 0.3:
        with torch.no_grad():
            action = policy(state).max(1).indices.view(1, 1)
    else:
        action = torch.tensor([[random.randrange(2)]], device=device, dtype=torch.long)
    after = None if step % 10 == 9 else torch.rand(4, device=device).unsqueeze(0)
    memory.append((state, action, after, torch.tensor([float(action.item())], device=device)))
    state = after if after is not None else torch.rand(1, 4, device=device)
    if len(memory) < 16:
        continue
    batch = random.sample(list(memory), 16)
    going_on = torch.tensor([b[2] is not None for b in batch], device=device, dtype=torch.bool)
    values = policy(torch.cat([b[0] for b in batch])).gather(1, torch.cat([b[1] for b in batch]))
    following = torch.zeros(16, device=device)
    with torch.no_grad():
        others = torch.cat([b[2] for b in batch if b[2] is not None])
        following[going_on] = target(others).max(1).values
    expected = following * 0.99 + torch.cat([b[3] for b in batch])
    loss = nn.functional.smooth_l1_loss(values, expected.unsqueeze(1))
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_value_(policy.parameters(), 100)
    optimizer.step()
    blended = target.state_dict()
    for name, value in policy.state_dict().items():
        blended[name] = value * 0.005 + blended[name] * 0.995
    target.load_state_dict(blended)
print("done", f"{loss.item():.2f}")
