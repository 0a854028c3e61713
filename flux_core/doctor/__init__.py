"""What FLUX.1 can do with the files that are there, what is missing, broken or doesn't fit, and what a picture takes.

files     what each file is, from its header alone
tasks     which files each task takes, and which are missing
estimate  memory and time for a picture
settings  a run's settings against the authors'
report    all of that in words, and as data for programs
"""

from .estimate import Device, device_here
from .files import DEPTH_FOLDER, FOLDERS, ModelFile, files_below, look_into, look_into_depth_network
from .report import Report, examine
from .settings import Finding, Prompt, check_latent, check_prompt, check_sigmas

__all__ = [
    "DEPTH_FOLDER",
    "FOLDERS",
    "Device",
    "Finding",
    "ModelFile",
    "Prompt",
    "Report",
    "check_latent",
    "check_prompt",
    "check_sigmas",
    "device_here",
    "examine",
    "files_below",
    "look_into",
    "look_into_depth_network",
]
