"""FLUX.1 done right: a node pack for ComfyUI."""


async def comfy_entrypoint():
    from comfy_api.latest import ComfyExtension

    from .nodes import NODES

    class Flux1Extension(ComfyExtension):
        async def get_node_list(self):
            return NODES

    return Flux1Extension()
