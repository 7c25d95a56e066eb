"""Two networks and two optimizers, in the old style: Variable, torch.cuda.FloatTensor, conditional .cuda()."""

import torch
from torch import nn
from torch.autograd import Variable

cuda = torch.cuda.is_available()
Tensor = torch.cuda.FloatTensor if cuda else torch.FloatTensor
generator = nn.Sequential(nn.Linear(100, 64), nn.BatchNorm1d(64), nn.LeakyReLU(0.2), nn.Linear(64, 784))
critic = nn.Sequential(nn.Linear(784, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1), nn.Sigmoid())
loss_function = nn.BCELoss()
if cuda:
    generator.cuda()
    critic.cuda()
    loss_function.cuda()
generator_steps = torch.optim.Adam(generator.parameters(), 2e-4, (0.5, 0.999))
critic_steps = torch.optim.Adam(critic.parameters(), 2e-4, (0.5, 0.999))
for _ in range(3):
    real = Variable(torch.rand(16, 784).type(Tensor))
    valid = Variable(Tensor(16, 1).fill_(1.0), requires_grad=False)
    fake = Variable(Tensor(16, 1).fill_(0.0), requires_grad=False)
    generator_steps.zero_grad()
    made = generator(Variable(Tensor(torch.randn(16, 100))))
    loss = loss_function(critic(made), valid)
    loss.backward()
    generator_steps.step()
    critic_steps.zero_grad()
    critic_loss = (loss_function(critic(real), valid) + loss_function(critic(made.detach()), fake)) / 2
    critic_loss.backward()
    critic_steps.step()
    image = made.data.view(16, 28, 28).cpu().numpy()
print("done", image.shape, f"{loss.item():.2f}")
