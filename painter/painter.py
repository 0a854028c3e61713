"""The family at work: pictures made by the pack's nodes on a running ComfyUI server."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from painter.family import FILES
from painter.redux import FILES as REDUX_FILES
from painter.redux import LOADERS
from painter.scenes import SIZE, Array
from workflows.client import Client
from workflows.comfyui import find_comfyui
from workflows.graph import GraphBuilder, Link
from workflows.server import serve

WEIGHTS = Path(__file__).parent / "weights"
TOGETHER = 8  # jobs in one prompt
STEPS = {"schnell": 4}


@dataclass(frozen=True)
class Job:
    """One picture to be made.

    shown: Fill's or Kontext's picture, a control model's map, or what Redux shows the others, (128, 128, 3) in [0, 1]; mask
    as Fill takes it.
    then: a second instruction for Kontext, on the first one's latent. model: another variant's file in the same graph.
    guidance, shift: instead of the model's own; shift is mu.
    """

    variant: str
    prompt: str
    seed: int
    shown: Array | None = None
    mask: NDArray[np.bool_] | None = None
    then: str | None = None
    model: str | None = None
    guidance: float | None = None
    shift: float | None = None


class Painter:
    """Runs jobs on the server behind `client`, which has the family's files."""

    def __init__(self, client: Client, progress: bool = False) -> None:
        self.client, self.progress = client, progress

    def paint(self, jobs: Sequence[Job], name: str = "painting") -> Array:
        """(jobs, 128, 128, 3) in [0, 1]"""
        groups = [jobs[i : i + TOGETHER] for i in range(0, len(jobs), TOGETHER)]
        return np.concatenate([
            self.run([lambda add, job=job: self.nodes(add, job) for job in group])
            for group in tqdm(groups, desc=name, disable=not self.progress)
        ])  # fmt: skip

    def round_trips(self, pictures: Sequence[Array]) -> Array:
        """Encoded and decoded again."""

        def nodes(add: GraphBuilder, picture: Array) -> Link:
            vae = add("Flux1LoadVAE", vae_name=name_of("ae"))[0]
            latent = add("Flux1EncodeImage", image=self.load(add, picture)[0], vae=vae)[0]
            return add("Flux1DecodeImage", latent=latent, vae=vae)[0]

        return self.run([lambda add, picture=picture: nodes(add, picture) for picture in pictures])

    def run(self, makers: Sequence) -> Array:
        """All in one prompt; each maker adds its nodes and returns its IMAGE."""
        add = Sharing()
        savers = [
            add("SaveImage", images=make(add), filename_prefix=f"painter/{i}")[0][0] for i, make in enumerate(makers)
        ]
        result = self.client.run(add.graph)
        owners = [key for key, output in result.outputs.items() for _ in output.get("images", [])]
        made = dict(zip(owners, result.images, strict=True))
        return np.stack([np.asarray(made[key].convert("RGB"), np.float32) / 255 for key in savers])

    def load(self, add: GraphBuilder, picture: Array, mask: NDArray[np.bool_] | None = None) -> list[Link]:
        """IMAGE and MASK of an uploaded picture."""
        image = Image.fromarray((picture * 255).round().astype(np.uint8))
        if mask is not None:
            image.putalpha(Image.fromarray(np.where(mask, 0, 255).astype(np.uint8)))
        name = hashlib.sha256(image.tobytes()).hexdigest()[:20] + ".png"
        return add("LoadImage", image=self.client.upload(image, name))

    def nodes(self, add: GraphBuilder, job: Job) -> Link:
        clip = add("Flux1LoadTextEncoders", t5_name=name_of("t5"), clip_name=name_of("clip"))[0]
        vae = add("Flux1LoadVAE", vae_name=name_of("ae"))[0]
        file = name_of(job.model or job.variant)
        model = add("Flux1LoadModel", model_name=file, weight_dtype="default", variant="auto")[0]

        def said(prompt: str) -> Link:
            own = {} if job.guidance is None else {"guidance": job.guidance, "guidance_by_model": False}
            return add("Flux1TextEncode", clip=clip, prompt=prompt, model=model, **({"guidance": 3.5} | own))[0]

        def sampled(positive: Link, latent: Link, seed: int) -> Link:
            settings = {"steps": STEPS.get(job.variant, 16), "strength": 1.0}
            own = {}
            if job.shift is not None:
                shifts = {"shift": "by size", "base_shift": job.shift, "max_shift": job.shift}
                own["sigmas"] = add("Flux1Scheduler", latent=latent, **settings, **shifts)[0]
            return add("Flux1Sampler", model=model, positive=positive, latent=latent, seed=seed, **settings, **own)[0]

        positive = said(job.prompt)
        if job.variant == "fill":
            image, mask, *_ = self.load(add, job.shown, job.mask)
            positive, latent, *_ = add("Flux1FillConditioning", conditioning=positive, vae=vae, image=image, mask=mask)
        elif job.variant == "kontext":
            reference = {"images.image0": self.load(add, job.shown)[0], "sizing": "own size"}
            positive, latent, *_ = add("Flux1KontextReference", conditioning=positive, vae=vae, **reference)
        elif job.variant in ("canny", "depth"):
            control = self.load(add, job.shown)[0]
            positive, latent, *_ = add(
                "Flux1ControlConditioning", conditioning=positive, vae=vae, control_image=control
            )
        else:
            latent = add("Flux1EmptyLatent", preset="custom", width=SIZE, height=SIZE, batch_size=1)[0]
            if job.shown is not None:
                positive = self.seen(add, positive, job.shown)
        samples = sampled(positive, latent, job.seed)
        if job.then is not None:
            again = add("ReferenceLatent", conditioning=said(job.then), latent=samples)[0]
            samples = sampled(again, samples, job.seed + 1)
        return add("Flux1DecodeImage", latent=samples, vae=vae)[0]

    def seen(self, add: GraphBuilder, positive: Link, picture: Array) -> Link:
        """The prompt with what Redux says of the picture."""
        redux = add("StyleModelLoader", style_model_name=name_of("redux"))[0]
        siglip = add("CLIPVisionLoader", clip_name=name_of("siglip"))[0]
        inputs = {"strength": 1.0, "strength_type": "multiply", "pictures.picture0": self.load(add, picture)[0]}
        return add("Flux1ReduxConditioning", conditioning=positive, style_model=redux, clip_vision=siglip, **inputs)[0]


class Sharing(GraphBuilder):
    """The same node with the same inputs is there once."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[str, list[Link]] = {}

    def __call__(self, class_type: str, **inputs: object) -> list[Link]:
        key = f"{class_type} {inputs}"
        if key not in self.made:
            self.made[key] = super().__call__(class_type, **inputs)
        return self.made[key]


def name_of(part: str) -> str:
    return Path((FILES | REDUX_FILES)[part]).name


@contextmanager
def painting(folder: Path = WEIGHTS, progress: bool = True) -> Iterator[Painter]:
    """A server of its own with the files below `folder`."""
    with serve(folder, comfyui=find_comfyui(), options=("--cpu", *LOADERS)) as server:
        yield Painter(Client(server.address), progress)
