import sys

import torch

torch.ones(4, device="cuda").sum()
sys.exit("no data folder")
