"""Make timm importable beside a CPU-only torch.

timm imports torchvision, and torchvision's registry build carries compiled operators
for CUDA builds of torch only; beside a CPU-only torch its import ends with "operator
torchvision::nms does not exist". Nothing here uses these two operators, so declaring
their schemas is enough. Where torchvision imports as it is, this file does nothing.
"""

import torch

_library: torch.library.Library | None = None  # must stay alive as long as the schemas are needed

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    _library = torch.library.Library("torchvision", "DEF")
    _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401
