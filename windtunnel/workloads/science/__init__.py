"""What scientific programs share: how a fused engine's step is priced, and rates as curves over problem size.

* ``kernel``: what one fused kernel asks of a chip.
* ``engine``: seconds of a step made of such kernels, with an interval; ``fit`` finds its constants.
* ``curve``: rate against size on one chip, and the ratio of two chips.

No PyTorch here.
"""
