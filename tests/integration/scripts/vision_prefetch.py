"""An image classifier in the manner of older GPU scripts: a prefetching stream, channels last, an EMA, top-5."""

import copy

import torch
from torch import nn

torch.backends.cudnn.benchmark = True
torch.cuda.set_device(0)
device = torch.device("cuda:0")
model = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1, bias=False),
    nn.BatchNorm2d(16),
    nn.ReLU(inplace=True),
    nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(32, 10),
)
model = nn.DataParallel(model).cuda().to(memory_format=torch.channels_last)
average = copy.deepcopy(model).eval()
optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
criterion = nn.CrossEntropyLoss(label_smoothing=0.1).cuda()


class Prefetcher:
    def __init__(self, batches):
        self.left = batches
        self.stream = torch.cuda.Stream()
        self.preload()

    def preload(self):
        self.images = None
        if self.left:
            self.left -= 1
            with torch.cuda.stream(self.stream):
                self.images = torch.randn(8, 3, 32, 32).pin_memory().cuda(non_blocking=True)
                self.labels = torch.randint(0, 10, (8,)).cuda(non_blocking=True)
                self.images = self.images.sub_(0.5).div_(0.2).contiguous(memory_format=torch.channels_last)

    def next(self):
        torch.cuda.current_stream().wait_stream(self.stream)
        images = self.images
        if images is None:
            return None, None
        images.record_stream(torch.cuda.current_stream())
        labels = self.labels
        self.preload()
        return images, labels


prefetcher = Prefetcher(4)
images, labels = prefetcher.next()
start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
start.record()
while images is not None:
    out = model(images)
    loss = criterion(out, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    with torch.no_grad():
        for old, new in zip(average.parameters(), model.parameters()):
            old.mul_(0.99).add_(new.detach(), alpha=0.01)
        _, guessed = out.topk(5, 1, True, True)
        correct = guessed.t().eq(labels.view(1, -1).expand_as(guessed.t()))
        accuracy = [correct[:k].reshape(-1).float().sum(0, keepdim=True).mul_(12.5).item() for k in (1, 5)]
    if not torch.isfinite(loss):
        raise SystemExit("diverged")
    images, labels = prefetcher.next()
end.record()
torch.cuda.synchronize()
print("milliseconds", start.elapsed_time(end) > 0, accuracy)
torch.save({"model": model.state_dict(), "rng": torch.cuda.get_rng_state_all()}, "vision.pt")
saved = torch.load("vision.pt", map_location=lambda storage, location: storage)
model.load_state_dict(saved["model"])
torch.cuda.set_rng_state_all(saved["rng"])
print("done", torch.cuda.get_device_properties(device).name)
