import torch

a = torch.randn(64, 64, device="cuda").to(torch.float8_e4m3fn)
b = torch.randn(64, 64, device="cuda").to(torch.float8_e4m3fn).t()
one = torch.ones((), device="cuda")
torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
