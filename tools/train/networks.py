"""The networks of the default pack, in torch. All take intensities and normalise them inside the graph.

Axes are (batch, channel, x, y[, z]). Convolutions carry no bias where a batch norm follows, which is folded
into them for export.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Detector", "Segmenter2d", "Segmenter3d", "count_macs"]


class SliceNormalisation(nn.Module):
    """Subtract each slice's mean and divide by its standard deviation, over x and y.

    Parameters
    ----------
    scale : what an intensity is divided by first, so that squares fit float16
    smallest : standard deviation, after scaling, below which a slice counts as empty
    """

    def __init__(self, scale: float, smallest: float) -> None:
        super().__init__()
        self.scale, self.floor = 1 / scale, smallest**2

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.scale
        x = x - x.mean((2, 3), keepdim=True)
        return x / torch.sqrt((x * x).mean((2, 3), keepdim=True) + self.floor)


def _block(before: int, after: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class Segmenter2d(nn.Module):
    """A U-Net (Ronneberger et al. 2015) from crops to logits.

    Parameters
    ----------
    filters : on each level, from fine to coarse
    coarse_start : begin at half the resolution, and end there: more filters for the same cost
    """

    def __init__(self, filters: Sequence[int], *, coarse_start: bool = False) -> None:
        super().__init__()
        self.normalise = SliceNormalisation(255.0, 0.01)
        first = filters[0]
        self.stem = nn.Conv2d(1, first, 4, stride=2, padding=1) if coarse_start else nn.Identity()
        widths = [first if coarse_start else 1, *filters]
        self.down = nn.ModuleList(
            nn.Sequential(_block(a, b), _block(b, b)) for a, b in itertools.pairwise(widths)
        )
        coarse_to_fine = list(itertools.pairwise(reversed(filters)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in coarse_to_fine)
        self.merge = nn.ModuleList(nn.Sequential(_block(2 * b, b), _block(b, b)) for _, b in coarse_to_fine)
        self.head = nn.ConvTranspose2d(first, 1, 2, stride=2) if coarse_start else nn.Conv2d(first, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, 64, 64), 0..255 -> logits of the same shape."""
        return self.decode(self.encode(self.stem(self.normalise(x))))

    def encode(self, x: Tensor) -> list[Tensor]:
        """Features on each level, from fine to coarse."""
        levels = []
        for k, level in enumerate(self.down):
            x = level(functional.max_pool2d(x, 2) if k else x)
            levels.append(x)
        return levels

    def decode(self, levels: list[Tensor]) -> Tensor:
        """Logits from the features of all levels."""
        x = levels[-1]
        for up, merge, skip in zip(self.up, self.merge, reversed(levels[:-1]), strict=True):
            x = merge(torch.cat([up(x), skip], 1))
        return self.head(x)


class AlongZ(nn.Module):
    """Adds to every slice what its neighbours above and below say: a convolution of 3 along z."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        nn.init.zeros_(self.mix.weight)  # at first every slice stands alone
        nn.init.zeros_(self.mix.bias)

    def forward(self, x: Tensor, blocks: Tensor | int) -> Tensor:
        """(blocks * z, c, x, y) -> the same; slices beyond the block's ends count as zero."""
        channels, nx, ny = x.shape[1:]
        columns = x.reshape(blocks, -1, channels, nx * ny).transpose(1, 2)  # (block, c, z, x * y)
        mixed = self.mix(functional.relu(columns)).transpose(1, 2)
        return x + mixed.reshape(-1, channels, nx, ny)


class Segmenter3d(nn.Module):
    """The 2D U-Net, whose slices talk to their neighbours on the coarser levels.

    The distance between slices is whatever the volume has, from 0.5 to 18 mm, so nothing is pooled along z,
    and a stack may have any number of slices. It starts from the weights of a trained `Segmenter2d`.

    Parameters
    ----------
    filters, coarse_start : of the 2D network
    """

    def __init__(self, filters: Sequence[int], *, coarse_start: bool = False) -> None:
        super().__init__()
        self.plane = Segmenter2d(filters, coarse_start=coarse_start)
        self.along_down = nn.ModuleList(AlongZ(width) for width in filters[1:])
        self.along_up = nn.ModuleList(AlongZ(width) for width in reversed(filters[1:-1]))

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, 64, 64, z), 0..255 -> logits of the same shape."""
        blocks, _, nx, ny, depth = x.shape
        slices = x.permute(0, 4, 1, 2, 3).reshape(-1, 1, nx, ny)
        y = self.plane.stem(self.plane.normalise(slices))
        levels: list[Tensor] = []
        for k, level in enumerate(self.plane.down):
            y = level(functional.max_pool2d(y, 2) if k else y)
            if k:
                y = self.along_down[k - 1](y, blocks)
            levels.append(y)
        for k, (up, merge) in enumerate(zip(self.plane.up, self.plane.merge, strict=True)):
            y = merge(torch.cat([up(y), levels[-2 - k]], 1))
            if k < len(self.along_up):
                y = self.along_up[k](y, blocks)
        logits = self.plane.head(y)
        return logits.reshape(blocks, depth, 1, nx, ny).permute(0, 2, 3, 4, 1)


class Detector(nn.Module):
    """Where the cord is on a whole slice of 1 mm pixels: logits of a heat map of 2 mm pixels.

    A feature pyramid (Lin et al. 2017) that sees 2 mm at its finest, and about 130 mm around every point.
    """

    def __init__(self, filters: Sequence[int] = (12, 20, 34, 54)) -> None:
        super().__init__()
        a, b, c, d = filters
        self.normalise = SliceNormalisation(1.0, 0.002)
        self.stem = _block(1, a, kernel=5, stride=2)
        self.down4 = nn.Sequential(_block(a, b, stride=2), _block(b, b))
        self.down8 = nn.Sequential(_block(b, c, stride=2), _block(c, c))
        self.down16 = nn.Sequential(_block(c, d, stride=2), _block(d, d), _block(d, d))
        self.lateral8, self.lateral4 = (
            nn.ConvTranspose2d(d, c, 2, stride=2),
            nn.ConvTranspose2d(c, b, 2, stride=2),
        )
        self.merge8, self.merge4 = _block(c, c), _block(b, b)
        self.head = nn.ConvTranspose2d(b, 1, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, x, y), sides multiples of 16 -> (n, 1, x / 2, y / 2)."""
        fine = self.down4(self.stem(self.normalise(x)))
        middle = self.down8(fine)
        coarse = self.down16(middle)
        middle = self.merge8(middle + self.lateral8(coarse))
        return self.head(self.merge4(fine + self.lateral4(middle)))


def count_macs(network: nn.Module, shape: Sequence[int]) -> int:
    """Count the multiply-adds of a network's convolutions for one input of a shape."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer.weight, Tensor)
        each = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        total += each.numel() // each.shape[1] * layer.weight.numel()

    handles = [
        layer.register_forward_hook(count)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    ]
    training = network.training
    network.eval()
    with torch.no_grad():
        network(torch.zeros(1, *shape))
    network.train(training)
    for handle in handles:
        handle.remove()
    return total
