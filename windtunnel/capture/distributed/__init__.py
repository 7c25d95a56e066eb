"""``torch.distributed`` on virtual cards: one process stands for a rank of any world size.

A fake process group gives rank and size; every collective on a card tensor is caught at the dispatcher and
recorded. What small valued tensors receive is as if every rank were like this one.
"""
