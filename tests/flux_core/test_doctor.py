"""The doctor on whole, incomplete and broken folders, against the files' own tensors and diffusers' layers."""

import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flux_core import schedule
from flux_core.checkpoint import read_header
from flux_core.checkpoint.layers import layers
from flux_core.doctor import (
    Device,
    Finding,
    Prompt,
    Report,
    check_latent,
    check_prompt,
    check_sigmas,
    examine,
    files_below,
)
from flux_core.doctor.__main__ import main
from flux_core.doctor.estimate import estimate, tokens_of, weights_of
from flux_core.doctor.files import look_into
from flux_core.errors import Flux1Error
from flux_core.model import Transformer
from flux_core.variants import VARIANTS
from painter.family import write_random_family
from tests.companions import write_companions
from tests.flux_core.checkpoint_samples import diffusers_model, t5, vae, write

ROOT = Path(__file__).resolve().parents[2]
DEVICE = Device("a device", torch.bfloat16, 1e12, 80 * 10**9)
SIZE = (1024, 1024)
TASKS = {
    "text": "Text to image",
    "fill": "Inpaint and outpaint (Fill)",
    "kontext": "Edit by instruction (Kontext)",
    "canny": "Paint along edges (Canny)",
    "canny LoRA": "Paint along edges (Canny LoRA)",
    "depth": "Paint by depth (Depth)",
    "depth LoRA": "Paint by depth (Depth LoRA)",
    "redux": "Vary a picture (Redux)",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with everything and, other than the one that all tests share, nothing else."""
    folder = tmp_path_factory.mktemp("whole")
    write_random_family(folder)
    write_companions(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """The same, to be harmed."""
    return shutil.copytree(whole, tmp_path / "models")


def examined(folder: Path) -> Report:
    return examine(files_below(folder), SIZE, DEVICE)


def not_ready(report: Report) -> set[str]:
    return {status.task.name for status in report.tasks if not status.ready}


def texts(report: Report, level: str) -> list[str]:
    return [finding.text for finding in report.findings if finding.level == level]


def test_with_every_file_there_every_task_can_be_run_and_nothing_is_wrong(folder: Path):
    report = examined(folder)
    assert {status.task.name for status in report.tasks} == set(TASKS.values())
    assert not not_ready(report) and not report.findings and not report.others and not report.missing
    assert "8 of 8" in report.page() and "To get" not in report.page()


@pytest.mark.parametrize(
    "file, tasks",
    [
        ("diffusion_models/flux1-dev.safetensors", ("canny LoRA", "depth LoRA")),  # schnell does the others
        ("diffusion_models/flux1-schnell.safetensors", ()),
        ("diffusion_models/flux1-fill-dev.safetensors", ("fill",)),
        ("diffusion_models/flux1-dev-kontext_fp8_scaled.safetensors", ("kontext",)),
        ("diffusion_models/flux1-canny-dev.safetensors", ("canny",)),
        ("diffusion_models/flux1-depth-dev.safetensors", ("depth",)),
        ("loras/flux1-canny-dev-lora.safetensors", ("canny LoRA",)),
        ("loras/flux1-depth-dev-lora.safetensors", ("depth LoRA",)),
        ("depth_anything/depth-anything-large-hf", ("depth", "depth LoRA")),
        ("style_models/flux1-redux-dev.safetensors", ("redux",)),
        ("clip_vision/sigclip_vision_patch14_384.safetensors", ("redux",)),
        ("text_encoders/t5xxl_fp16.safetensors", TASKS),
        ("text_encoders/clip_l.safetensors", TASKS),
        ("vae/ae.safetensors", TASKS),
    ],
)
def test_without_a_file_just_its_tasks_lack_it_and_the_page_says_which_and_where(folder: Path, file: str, tasks: tuple):
    gone = folder / file
    gone.rename(folder / "elsewhere")
    report = examined(folder)
    assert not_ready(report) == {TASKS[task] for task in tasks}
    if tasks:
        assert [(part.file, part.folder) for part in report.missing] == [(gone.name, file.split("/")[0])]
        assert gone.name in report.page().split("## To get")[1].split("##")[0]


def test_old_folder_names_and_linked_folders_are_looked_into_and_links_in_circles_have_an_end(folder: Path):
    (folder / "diffusion_models").rename(folder / "unet")
    (folder / "text_encoders").rename(folder / "store")
    (folder / "clip").mkdir()
    (folder / "clip" / "linked").symlink_to(folder / "store", target_is_directory=True)
    (folder / "clip" / "circle").symlink_to(folder / "clip", target_is_directory=True)
    report = examined(folder)
    assert not not_ready(report)
    names = [file.name for file in report.files if file.folder == "text_encoders"]
    assert names == ["linked/clip_l.safetensors", "linked/t5xxl_fp16.safetensors"]


def broken() -> Iterator[tuple[str, bytes]]:
    whole = (ROOT / "painter/weights/diffusion_models/flux1-fill-dev.safetensors").read_bytes()
    yield "truncated", whole[: len(whole) // 2]
    yield "header", whole[:100]
    yield "empty", b""
    yield "HTML", b"<!doctype html><html>"
    yield "trailing", whole + b"\0" * 8
    yield "pickle", b"\x80\x04\x95" + bytes(100)


@pytest.mark.parametrize("word, content", broken(), ids=[word for word, _ in broken()])
def test_a_broken_file_is_reported_in_the_reader_s_words_and_the_rest_as_ever(folder: Path, word: str, content: bytes):
    file = folder / "diffusion_models/flux1-fill-dev.safetensors"
    file.write_bytes(content)
    with pytest.raises(Flux1Error) as refusal:
        read_header(file)
    report = examined(folder)
    (error,) = (finding for finding in report.findings if finding.level == "error")
    assert f"diffusion_models/{file.name}" in error.text and refusal.value.found in error.text
    assert refusal.value.problem in error.text and error.fix == refusal.value.fix
    assert word.lower() in (error.text + error.fix).lower()
    assert not_ready(report) == {TASKS["fill"]} and error.text in report.page() and error.text in report.summary()
    assert f"Fix: {error.fix}" in report.page()


@pytest.mark.parametrize(
    "file, tensor",
    [
        ("diffusion_models/flux1-canny-dev", "double_blocks.1.txt_mlp.0.bias"),
        ("text_encoders/t5xxl_fp16", "encoder.block.1.layer.1.layer_norm.weight"),
    ],
)
def test_a_tensor_that_is_missing_is_named(folder: Path, file: str, tensor: str):
    path = folder / f"{file}.safetensors"
    tensors = load_file(path)
    del tensors[tensor]
    save_file(tensors, path)
    (text,) = texts(examined(folder), "error")
    assert f"missing: {tensor}" in text


def test_a_broken_depth_network_is_reported_and_no_task_takes_it(folder: Path):
    weights = folder / "depth_anything/depth-anything-large-hf/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    report = examined(folder)
    (text,) = texts(report, "error")
    assert "depth_anything/depth-anything-large-hf" in text
    assert not_ready(report) == {TASKS["depth"], TASKS["depth LoRA"]}


def test_no_file_however_harmed_raises(tmp_path: Path):
    """Bytes of a small file's header replaced at random."""
    chance, file = random.Random(1), tmp_path / "model.safetensors"
    save_file({name: tensor[:1].contiguous() for name, tensor in t5().items()}, file)
    whole = file.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(300):
        harmed = bytearray(whole)
        for _ in range(chance.randint(1, 20)):
            harmed[chance.randrange(end)] = chance.randrange(256)
        file.write_bytes(harmed)
        found = look_into("text_encoders", file.name, file)
        assert found.what
    for gone in (tmp_path / "gone.safetensors", tmp_path):
        assert look_into("vae", gone.name, gone).problem


@pytest.mark.parametrize("file", ["t5xxl_fp16.safetensors", "clip_l.safetensors"])
def test_text_encoders_of_another_width_do_not_fit_and_both_widths_are_said(folder: Path, file: str):
    path = folder / "text_encoders" / file
    width = look_into("text_encoders", file, path).checkpoint.text.width
    save_file({name: tensor.repeat(*[2] * tensor.ndim) for name, tensor in load_file(path).items()}, path)
    report = examined(folder)
    assert not_ready(report) == set(TASKS.values())
    (text,) = texts(report, "warning")
    assert file in text and f"width is {2 * width}, {width} is needed" in text


@pytest.mark.parametrize("kind", ["loras/flux1-canny-dev-lora", "style_models/flux1-redux-dev",
                                  "clip_vision/sigclip_vision_patch14_384"])  # fmt: skip
def test_parts_of_another_family_s_width_do_not_fit(folder: Path, kind: str):
    file = folder / f"{kind}.safetensors"
    tensors = load_file(file)
    save_file({name: torch.cat([tensor, tensor]) for name, tensor in tensors.items()}, file)
    (text,) = texts(examined(folder), "warning")
    assert file.name in text and "is needed" in text


def test_a_file_in_the_wrong_folder_is_told_the_right_one(folder: Path):
    (folder / "vae/ae.safetensors").rename(folder / "diffusion_models/ae.safetensors")
    report = examined(folder)
    (finding,) = report.findings
    assert "diffusion_models/ae.safetensors" in finding.text and finding.fix == "move it to models/vae"
    assert finding.level == "warning" and not_ready(report) == set(TASKS.values())


def test_an_all_in_one_file_is_left_to_ComfyUI_s_own_loader_and_that_is_only_noted(folder: Path):
    file = folder / "diffusion_models/flux1-dev.safetensors"
    weights = {f"model.diffusion_model.{name}": tensor for name, tensor in load_file(file).items()}
    (folder / "checkpoints").mkdir()
    weights["vae.encoder.conv_in.weight"] = torch.zeros(1)
    save_file(weights, folder / "checkpoints/all.safetensors", read_header(file).metadata)
    file.unlink()
    report = examined(folder)
    (note,) = texts(report, "note")
    assert "checkpoints/all.safetensors" in note and note in report.page() and note not in report.summary()
    assert not_ready(report) == {TASKS["canny LoRA"], TASKS["depth LoRA"]}
    assert "all.safetensors" not in {each.file for each in report.estimates}


def test_further_findings_take_their_place_among_those_there_are_the_worst_first(folder: Path):
    (folder / "vae/ae.safetensors").rename(folder / "diffusion_models/ae.safetensors")
    report = examined(folder).with_findings([Finding("note", "good to know"), Finding("error", "wrong")])
    assert [finding.level for finding in report.findings] == ["error", "warning", "note"]


def test_files_of_other_models_are_counted_not_listed(folder: Path):
    before = examined(folder).files
    save_file(vae(4), folder / "vae/sdxl.safetensors")
    sdxl = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_1_attn1_to_k.lora_down.weight"
    for name in ("one", "two"):
        save_file({sdxl: torch.zeros(4, 4)}, folder / f"loras/{name}.safetensors")
    report = examined(folder)
    assert report.files == before and not report.findings
    assert report.others == {"SDXL LoRA": 2, "VAE (autoencoder)": 1}


def test_a_24_gb_file_is_known_from_its_header_alone_and_its_weights_are_those_of_the_model(tmp_path: Path):
    """A sparse file of the released size; how much was read is the system's own count."""
    header, end = {}, 0
    for layer in layers(VARIANTS["dev"].params):
        rows = sum(layer.rows)
        shapes = {".scale": [rows]} if layer.is_norm else {".weight": [rows, layer.columns], ".bias": [rows]}
        for ending, shape in shapes.items():
            size = 2 * torch.Size(shape).numel()
            header[layer.name + ending] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
            end += size
    file = write(tmp_path / "flux1-dev.safetensors", header)
    with open(file, "ab") as opened:
        opened.truncate(file.stat().st_size + end)
    before = read_so_far()
    found = look_into("diffusion_models", file.name, file)
    assert read_so_far() - before < 2_000_000 and found.bytes > 23 * 10**9
    assert found.role == "dev" and "11.9 B parameters" in found.what and not found.problem
    with torch.device("meta"):
        model = Transformer(VARIANTS["dev"].params)
    modulation = sum(p.numel() for layer in model.modulation_layers() for p in layer.parameters())
    whole = sum(p.numel() for p in model.parameters())
    assert weights_of(found.checkpoint, torch.bfloat16) == (2 * (whole - modulation), 2 * modulation)
    assert weights_of(found.checkpoint, torch.float32) == (4 * (whole - modulation), 4 * modulation)


def read_so_far() -> int:
    """Bytes that this process has read, from the page cache or not."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_the_modulation_layers_of_diffusers_files_are_left_out_too(tmp_path: Path):
    model = diffusers_model()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    found = look_into("diffusion_models", "model.safetensors", tmp_path / "model.safetensors").checkpoint
    modulation = sum(
        parameter.nbytes
        for name, module in model.named_modules()
        if name.endswith(("norm1.linear", "norm1_context.linear", "norm.linear", "norm_out.linear"))
        for parameter in module.parameters()
    )
    whole = sum(parameter.nbytes for parameter in model.parameters())
    assert weights_of(found, torch.float32) == (whole - modulation, modulation)


def test_scaled_fp8_weights_stay_so_whatever_they_are_computed_in(models: Path):
    (kontext,) = (file for file in files_below(models) if file.role == "kontext")
    assert weights_of(kontext.checkpoint, torch.float32) == weights_of(kontext.checkpoint, torch.bfloat16)


def test_a_step_costs_more_with_the_picture_s_size_and_with_a_reference(models: Path):
    by_role = {file.role: file for file in files_below(models)}
    small, large = (estimate(by_role["dev"], size, DEVICE) for size in ((512, 512), SIZE))
    assert small.weights == large.weights and small.working < large.working and small.flops < large.flops
    assert large.step_seconds == pytest.approx(large.flops / DEVICE.flops)
    assert large.seconds == pytest.approx(50 * large.step_seconds)
    assert estimate(by_role["kontext"], SIZE, DEVICE).flops > 2 * large.flops
    tight = examine(by_role.values(), SIZE, replace(DEVICE, memory=large.weights + large.working - 1))
    assert any("flux1-dev.safetensors" in text for text in texts(tight, "warning"))


def test_text_encoders_and_vae_are_reckoned_beside_the_model_where_they_are_there(folder: Path):
    small, large = (examine(files_below(folder), size, DEVICE).beside for size in ((512, 512), SIZE))
    assert large.text_encoders == sum(file.stat().st_size for file in (folder / "text_encoders").iterdir())
    assert large.vae == (folder / "vae/ae.safetensors").stat().st_size
    assert large.decoding == 4 * small.decoding
    assert "to decode in one piece" in examined(folder).page()
    (folder / "vae/ae.safetensors").unlink()
    assert examined(folder).beside is None


def test_where_a_missing_file_is_to_be_had_stands_beside_it(folder: Path):
    (folder / "vae/ae.safetensors").unlink()
    report = examine(files_below(folder), SIZE, DEVICE, lambda file: f" from https://example.org/{file}")
    assert "the VAE from https://example.org/ae.safetensors" in report.page()


def test_a_file_s_name_can_t_break_the_page_s_tables(folder: Path):
    file = folder / "loras/one|two.safetensors"
    file.write_bytes(b"")
    assert r"loras/one\|two.safetensors" in examined(folder).page().split("## Files")[1]


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=list(VARIANTS))
def test_the_authors_own_settings_are_found_right(variant):
    prompt = Prompt(variant.text_tokens, 64, variant.guidance, pictured=True, references=1)
    mu = schedule.shift_for(tokens_of(SIZE)) if variant.shifted else None
    assert not [*check_prompt(prompt, variant, 64)]
    assert not [*check_sigmas(schedule.sigmas(variant.steps, mu), variant, SIZE)]
    assert not [*check_latent((1, 16, 128, 128), SIZE)]


@pytest.mark.parametrize(
    "variant, change, words",
    [
        ("fill", {"guidance": None}, "guidance: none is given, ComfyUI takes 3.5, fill is made for 30"),
        ("dev", {"guidance": 30.0}, "guidance: 30, dev is made for 3.5"),
        ("dev", {"tokens": 256}, "256 T5 tokens, dev is run with 512"),
        ("dev", {"width": 768}, "768 wide, the model reads 64"),
        ("canny", {"pictured": False}, "shown no picture"),
        ("depth", {"pictured": False}, "add FLUX.1 Control Conditioning"),
        ("fill", {"pictured": False}, "add FLUX.1 Fill Conditioning"),
        ("kontext", {"references": 0}, "no reference"),
    ],
)
def test_what_is_off_in_a_prompt_is_said(variant: str, change: dict, words: str):
    own = VARIANTS[variant]
    prompt = Prompt(own.text_tokens, 64, own.guidance, pictured=True, references=1)
    (finding,) = check_prompt(replace(prompt, **change), own, 64)
    assert words in f"{finding.text}: {finding.fix}" and finding.fix


def test_pictures_of_redux_are_no_fault_of_the_prompt_s_length():
    assert not [*check_prompt(Prompt(512 + 2 * 729, 64, 3.5), VARIANTS["dev"], 64)]


@pytest.mark.parametrize(
    "variant, sigmas, size, level, words",
    [
        # ComfyUI's fixed shift
        ("dev", schedule.sigmas(20, 1.15), (512, 512), "warning", "shifted for 512 x 512 (mu 0.63)"),
        ("schnell", schedule.sigmas(4, 1.15), SIZE, "warning", "not shifted at all"),
        ("dev", schedule.sigmas(4, 1.15), SIZE, "warning", "4 steps, dev is run with 50"),
        ("schnell", schedule.sigmas(20), SIZE, "note", "20 steps, schnell is run with 4"),
    ],
)
def test_what_is_off_in_a_schedule_is_said(
    variant: str, sigmas: torch.Tensor, size: tuple[int, int], level: str, words: str
):
    (finding,) = check_sigmas(sigmas, VARIANTS[variant], size)
    assert words in finding.text and finding.level == level and finding.fix


def test_a_part_of_a_schedule_is_not_taken_for_a_short_one():
    part = schedule.from_strength(schedule.sigmas(20, 1.15), 0.3)
    assert not [*check_sigmas(part, VARIANTS["dev"], SIZE)]


@pytest.mark.parametrize(
    "shape, words", [((1, 4, 128, 128), "4 channels"), ((1, 16, 512, 512), "beyond"), ((1, 16, 8, 8), "below")]
)
def test_what_is_off_in_a_latent_is_said(shape: tuple[int, ...], words: str):
    (finding,) = check_latent(shape, (8 * shape[3], 8 * shape[2]))
    assert words in finding.text and finding.fix
    assert ("Tiled Sampler" in finding.fix) == (words == "beyond")


def test_the_command_line_says_the_same_for_people_and_for_programs(folder: Path, capsys: pytest.CaptureFixture):
    (folder / "vae/ae.safetensors").unlink()
    script = [sys.executable, "-m", "flux_core.doctor", str(folder), "--json", "--size", "512x768"]
    data = subprocess.run(script, cwd=ROOT, capture_output=True, text=True)
    assert data.returncode == main([str(folder)]) == 1 and not data.stderr
    page = capsys.readouterr().out
    assert page.startswith("# FLUX.1 Doctor: 0 of 8") and "ae.safetensors" in page
    told = json.loads(data.stdout)
    assert told["size"] == [512, 768] and told["device"]["flops"] > 1e8
    assert {missing["file"] for task in told["tasks"] for missing in task["missing"]} == {"ae.safetensors"}
    assert main([str(ROOT / "painter/weights")]) == 0


@pytest.mark.parametrize("arguments", [["/no/such/folder"], [str(ROOT), "--size", "big"], [str(ROOT), "--size", "8x8"]])
def test_what_the_command_line_can_t_use_is_refused_in_words(arguments: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert re.search("is no folder|is no size", capsys.readouterr().err)
