"""A recurrent language model with truncated backpropagation and steps by hand, without an optimizer."""

import math

import torch
from torch import nn

device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Embedding(50, 32)
        self.rnn = nn.LSTM(32, 32, 2, dropout=0.2)
        self.decoder = nn.Linear(32, 50)

    def forward(self, ids, hidden):
        out, hidden = self.rnn(self.encoder(ids), hidden)
        return nn.functional.log_softmax(self.decoder(out).view(-1, 50), dim=1), hidden


model, criterion = Model().to(device), nn.NLLLoss()
data = torch.randint(0, 50, (80, 8)).to(device)
weight = next(model.parameters())
hidden = (weight.new_zeros(2, 8, 32), weight.new_zeros(2, 8, 32))
total = 0.0
for begin in range(0, 60, 20):
    model.zero_grad()
    hidden = tuple(h.detach() for h in hidden)
    out, hidden = model(data[begin : begin + 20], hidden)
    loss = criterion(out, data[begin + 1 : begin + 21].view(-1))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)
    for p in model.parameters():
        p.data.add_(p.grad, alpha=-0.1)
    total += loss.item()
print("done", f"{math.exp(total / 3):.2f}")
