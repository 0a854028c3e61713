"""`python -m benchmarks.edit [--json FILE]`: edits put back, by this pack and by the common ways, on the same photographs.

The editor gives the picture back with a smooth wave of 10 % over its colours. What a way makes of that is compared with
what it makes of the picture itself, so that scaling counts for nothing: a difference at the mask's edge is a seam. Time
and memory of a large picture are measured in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from flux_core.edit.blend import BLENDS
from flux_core.edit.finish import COLOURS, finished
from flux_core.edit.region import prepared

WIDTH = 16
LARGE, HOLE = 4096, 512
Way = Callable[[Tensor, Tensor, Callable[[Tensor], Tensor]], Tensor]
"""From picture, mask and editor to the result."""


def photographs() -> dict[str, Tensor]:
    """Twelve photographs, cut to 496 x 496 or what there is of it, in whole tokens as the simplest ways need them."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    pictures = {
        name: getattr(data, name)()
        for name in (
            "astronaut",
            "coffee",
            "chelsea",
            "rocket",
            "retina",
            "immunohistochemistry",
            "camera",
            "coins",
            "moon",
        )
    }
    pictures |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    pictures["motorcycle"] = data.stereo_motorcycle()[0]
    cut = {}
    for name, picture in pictures.items():
        colours = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, -1)
        height, width = (min(side, 496) // 16 * 16 for side in colours.shape[:2])
        cut[name] = torch.from_numpy(colours[:height, :width, :3].astype(np.float32))[None] / 255
    return cut


def wave(height: int, width: int, seed: int) -> Tensor:
    random = np.random.default_rng(seed)
    rows, columns = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
    waves = [
        0.1 * np.sin(a * rows + b * columns + phase) for a, b, phase in random.uniform(-2 * np.pi, 2 * np.pi, (3, 3))
    ]
    return torch.from_numpy(np.stack(waves, -1).astype(np.float32))


def ours(colour: str, blend: str, width: int) -> Way:
    def way(picture: Tensor, mask: Tensor, editor: Callable[[Tensor], Tensor]) -> Tensor:
        region = prepared(picture, mask, megapixels=0.25)
        return finished(editor(region.image), region, colour=colour, blend=blend, width=width).image

    return way


def no_composite(picture: Tensor, mask: Tensor, editor: Callable[[Tensor], Tensor]) -> Tensor:
    """What the decoder gives, as most workflows save it."""
    return scaled(editor(scaled(picture, (512, 512))), picture.shape[1:3])


def plain_composite(picture: Tensor, mask: Tensor, editor: Callable[[Tensor], Tensor]) -> Tensor:
    """ComfyUI's ImageCompositeMasked after scaling the edit to the picture's size: `mask * edit + (1 - mask) * picture`."""
    return torch.lerp(picture, no_composite(picture, mask, editor), mask[..., None])


def crop_and_stitch(picture: Tensor, mask: Tensor, editor: Callable[[Tensor], Tensor]) -> Tensor:
    """The textbook's: the mask's box with a margin, scaled and back, pasted under the mask blurred over `WIDTH` pixels."""
    rows, columns = (mask[0].any(dim).nonzero() for dim in (1, 0))
    top, bottom = max(int(rows.min()) - 64, 0), int(rows.max()) + 65
    left, right = max(int(columns.min()) - 64, 0), int(columns.max()) + 65
    part = picture[:, top:bottom, left:right]
    edited = scaled(editor(scaled(part, (512, 512))), part.shape[1:3])
    soft = avg_pool2d(mask, 2 * WIDTH + 1, 1, WIDTH, count_include_pad=False)[:, top:bottom, left:right, None]
    result = picture.clone()
    result[:, top:bottom, left:right] = torch.lerp(part, edited, soft)
    return result


def scaled(picture: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(picture.movedim(-1, 1), tuple(size), mode="bicubic", antialias=True).movedim(1, -1).clamp(0, 1)


WAYS: dict[str, Way] = {
    "the decoder's picture": no_composite,
    "composite (ImageCompositeMasked)": plain_composite,
    "crop and stitch, blurred mask": crop_and_stitch,
    **{f"colour {colour}, hard edge": ours(colour, "feather", 0) for colour in COLOURS},
    **{f"colour off, {blend}": ours("off", blend, WIDTH) for blend in BLENDS},
    **{f"colour local, {blend}": ours("local", blend, WIDTH) for blend in BLENDS},
}


def compare() -> dict[str, dict[str, float]]:
    """Of each way, means over the photographs, errors in levels of 255 and time in multiples of the composite's."""
    pictures = photographs()
    rows = {}
    for name, way in WAYS.items():
        outside, step, ramp, inside, seconds = [], [], [], [], 0.0
        for seed, picture in enumerate(pictures.values()):
            height, width = picture.shape[1:3]
            y, x = torch.arange(height)[:, None] - height * 0.5, torch.arange(width) - width * 0.45
            mask = (y**2 + x**2 < (0.2 * height) ** 2).float()[None]
            wanted = way(picture, mask, lambda shown: shown)
            began = time.process_time()
            result = way(
                picture, mask, lambda shown, seed=seed: (shown * (1 + wave(*shown.shape[1:3], seed))).clamp(0, 1)
            )
            seconds += time.process_time() - began
            error = (result - wanted).abs().mean(-1)
            rim = (mask > 0) & (max_pool2d(1 - mask, 3, 1, 1) > 0)
            band = (mask > 0) & (max_pool2d(1 - mask, 2 * WIDTH + 1, 1, WIDTH) > 0)
            outside.append((result - picture).abs().mean(-1)[mask == 0].max())
            step.append(error[rim].mean())
            ramp.append(error[band].mean())
            inside.append(error[mask > 0].mean())
            assert result.shape == picture.shape
        rows[name] = {
            "outside, largest": 255 * float(max(outside)), "step at the edge": 255 * float(sum(step) / len(step)),
            "error in the band": 255 * float(sum(ramp) / len(ramp)), "error inside": 255 * float(sum(inside) / len(inside)),
            "time": seconds,
        }  # fmt: skip
    unit = rows["composite (ImageCompositeMasked)"]["time"]
    return {name: row | {"time": row["time"] / unit} for name, row in rows.items()}


LARGE_RUN = f"""
import time, resource, torch
from flux_core.edit.finish import finished
from flux_core.edit.region import prepared

def status(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))

small = torch.rand(1, 600, 600, 3)
mask = torch.zeros(1, 600, 600); mask[:, 50:550, 50:550] = 1
once = prepared(small, mask, megapixels=0.02)
finished(once.image, once)  # what is loaded at first use
base = status("VmRSS")
picture, mask = torch.rand(1, {LARGE}, {LARGE}, 3), torch.zeros(1, {LARGE}, {LARGE})
mask[:, 1000 : 1000 + {HOLE}, 2000 : 2000 + {HOLE}] = 1
began, used = time.perf_counter(), time.process_time()
region = prepared(picture, mask)
edited = region.image
shown = region.shown_mask
done = finished(edited, region)
seconds, used, most = time.perf_counter() - began, time.process_time() - used, status("VmHWM")
assert torch.equal(done.image[mask == 0], picture[mask == 0])
print(seconds, used, most / picture.nbytes, (most - base) / picture.nbytes)
"""


def large() -> dict[str, float]:
    """Seconds on the clock and of the processors, and the most memory in multiples of the picture's: all, and beside torch."""
    root = Path(__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", LARGE_RUN], capture_output=True, text=True, check=True, cwd=root).stdout
    names = ("seconds", "processor seconds", "memory", "memory beside torch's own")
    return dict(zip(names, map(float, out.split()), strict=True))


def table(rows: dict[str, dict[str, float]]) -> str:
    columns = list(next(iter(rows.values())))
    lines = [f"| way | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(f'{row[column]:.2f}' for column in columns)} |" for name, row in rows.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    rows, big = compare(), large()
    print("Errors in levels of 255, time in multiples of the composite's; means over twelve photographs.\n")
    print(table(rows))
    print(f"\n{LARGE} x {LARGE} pixels with a mask of {HOLE}, prepared and finished:\n")
    print(table({"colour local, feather": big}))
    if options.json:
        options.json.write_text(json.dumps({"photographs": rows, "large": big}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
