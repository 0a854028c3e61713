"""The bundled workflows' thumbnails are there, and are what the workflows paint."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from painter import showcase
from painter.painter import Painter

WORKFLOWS = sorted(showcase.WORKFLOWS.glob("*.json"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_every_workflow_has_its_thumbnail(file: Path):
    thumbnail = Image.open(file.with_suffix(".jpg"))
    assert thumbnail.height == showcase.THUMBNAIL
    assert file.with_suffix(".jpg").stat().st_size < 200_000


def test_a_thumbnail_is_the_workflows_own_result(painter: Painter):
    done = showcase.run(painter.client, "fill_inpaint", showcase.landscape(), showcase.sunless_hole())
    now = np.asarray(showcase.side_by_side(done.pictures), np.float32)
    kept = np.asarray(Image.open(showcase.WORKFLOWS / "fill_inpaint.jpg"), np.float32)
    assert now.shape == kept.shape
    assert np.abs(now - kept).mean() < 4


def test_the_sun_is_masked_whole():
    picture, hole = np.asarray(showcase.landscape()), np.asarray(showcase.sunless_hole())
    sun = (picture > (245, 240, 200)).all(-1)
    assert sun.sum() > 100 and (hole[sun] == 255).all()
