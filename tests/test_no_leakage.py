"""What a determined author might try to see the test split or to fake a cost, and what
stops it: rules on the text of a method, or the harness at work.
"""

import pytest
import torch

from harness.run.code.rules import REACH, breaches

TRICKS = {  # what is tried in compress(self, model, data)
    "walk the heap": "import gc\nfound = [o for o in gc.get_objects() if isinstance(o, Tensor)]",
    "walk the stack by sys": "import sys\njob = sys._getframe(2).f_locals['job']",
    "walk the stack by a generator": "frame = (x for x in ()).gi_frame.f_back",
    "walk the stack by an exception": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    frame = "
    "e.__traceback__.tb_frame.f_back",
    "import the harness": "from harness import data as files",
    "import the harness by string": "import importlib\nfiles = importlib.import_module('harness.data.splits')",
    "import the harness by builtins": "files = __import__('harness.data.splits')",
    "import the harness by torch's own sys": "files = torch.sys.modules['harness.data.splits']",
    "import by a name made up": "files = getattr(torch, 'sy' + 's').modules",
    "find a class by its bases": "files = ().__class__.__base__.__subclasses__()",
    "find globals by a function": "files = data.batches.__globals__",
    "find globals by a method's self": "files = data.steps.__self__",
    "patch the loader": "data.__class__.train = property(lambda self: None)",
    "look into the data": "labels = data._learn.tensors",
    "look into the data by name": "labels = getattr(data, '_learn')",
    "look at all of the data": "labels = vars(data)",
    "forge the count of images": "data.images_seen = 0",
    "forge the count of images by name": "setattr(data, 'images_seen', 0)",
    "open the test split": "test = open('artefacts/digits/data/test.safetensors', 'rb').read()",
    "open the test split by pathlib": "from pathlib import Path\ntest = Path('artefacts').read_bytes()",
    "open the test split by NumPy": "import numpy as np\ntest = np.fromfile('artefacts/digits/data/test.safetensors')",
    "map the test split by NumPy": "import numpy as np\ntest = np.memmap('artefacts/digits/data/test.safetensors')",
    "open the test split by torch": "test = torch.load('artefacts/digits/data/test.safetensors')",
    "map the test split by torch": "test = torch.from_file('artefacts/digits/data/test.safetensors', size=9)",
    "map it by a storage": "test = torch.UntypedStorage.from_file('artefacts/digits/data/test.safetensors', False, 9)",
    "map it by an operator": "test = torch.ops.aten.from_file('artefacts/digits/data/test.safetensors', False, 9)",
    "open it by safetensors": "from safetensors.torch import load_file",
    "load the dataset again": "from sklearn.datasets import load_digits",
    "load the dataset by torchvision": "from torchvision.datasets import CIFAR10",
    "load weights that were trained elsewhere": "import timm\nmodel = timm.create_model('resnet18')",
    "ask for pretrained weights": "from timm.models import resnet18\nmodel = resnet18(pretrained=True)",
    "load weights from a hub": "model = torch.hub.load_state_dict_from_url('http://x')",
    "keep something for the next point": "import numpy as np\nnp.save('kept', 1)",
    "keep something by a tensor": "import numpy as np\nnp.zeros(1).tofile('kept')",
    "ask the network": "import urllib.request",
    "read the environment": "import os\nos.environ['SHRINKMARK_DATA']",
    "read the environment by torch": "torch.os.getenv('SHRINKMARK_DATA')",
    "read the clock": "import time\nstart = time.time()",
    "sleep until timed": "import time\ntime.sleep(9)",
    "read the clock by torch": "from torch.utils.benchmark import Timer",
    "fake the clock": "import time\ntime.perf_counter = lambda: 0",
    "compile code": "exec('import os')",
    "run a program": "import subprocess",
    "leave a process behind": "import multiprocessing",
    "leave a process behind by torch": "import torch.multiprocessing",
    "seed": "torch.manual_seed(3)",
    "know the model by its name": "name = model.default_cfg['architecture']",
    "know the model by a name made up of one": "name = getattr(model, 'default_cfg')",
    "import torch's own sys": "from torch import sys",
    "import the interpreter from where it hides": "from collections import _sys",
    "import a loader of files": "from torch import load",
    "import all": "from torch import *",
    "import the harness beside": "from ..harness import data as files",
    "import by pydantic": "from pydantic import ImportString",
    "look into builtins": "files = __builtins__['__import__']('harness.data.splits')",
    "find builtins by a library": "import dataclasses\nfiles = dataclasses.builtins.open('x')",
    "open by another name": "read = open\nread('x')",
    "find globals by name": "files = getattr(data.batches, '__globals__')",
    "find globals by getting an attribute": "from operator import attrgetter\nfiles = attrgetter('_' '_globals_' '_')(data.batches)",
    "find globals by handing getattr on": "from functools import reduce\nfiles = reduce(getattr, ['x'], data.batches)",
    "reach into a library under another name": "import torch as t\nfiles = getattr(t, 'sy' + 's')",
    "reach behind a library": "files = torch._C",
    "patch a library": "torch.nn.Linear.forward = lambda self, x: x",
    "read a clock that torch has": "now = torch.utils.benchmark.timer()",
    "run text by NumPy": "from numpy.testing import runstring",
    "build a program": "from torch.utils.cpp_extension import load_inline",
    "map a file by NumPy's parts": "from numpy.lib.format import open_memmap",
}
BENIGN = """\
'Zero the half of every Linear that a step would change least; load, save, open and __import__ are but words here.'
if not hasattr(model, "head"):
    raise ValueError(f"{type(model).__name__} has no head")
model(data.calibration[:8]).square().mean().backward()
for name, module in model.named_modules():
    if isinstance(module, torch.nn.Linear):
        noise = torch.rand(module.weight.shape, generator=data.generator(name))
        score = (module.weight * module.weight.grad).abs() + 1e-12 * noise
        module.weight.data[score < score.median()] = 0
        setattr(module, "times", getattr(module, "times", 0) + 1)"""


def method(body):
    """Return the source of a method whose compress(self, model, data) has this body."""
    lines = "\n".join(f"        {line}" for line in body.splitlines())
    return (
        "import torch\nfrom methods import Method\n\nclass Made(Method):\n    def compress(self, "
        f"model, data):\n{lines}\n        return model\n"
    )


@pytest.mark.parametrize("trick", TRICKS, ids=TRICKS)
def test_a_trick_is_refused_by_the_rules_on_the_text_of_methods(trick):
    assert breaches(method(TRICKS[trick]))


def test_a_method_that_compresses_and_no_more_is_refused_by_none_of_them(make_model, make_data):
    assert breaches(method(BENIGN)) == []
    exec(method(BENIGN), made := {})
    compressed = made["Made"]().compress(make_model("mixer"), make_data("mixer"))
    shares = [
        float((module.weight == 0).float().mean())
        for module in compressed.blocks.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    assert shares and all(0.4 < share <= 0.5 for share in shares)


def test_a_breach_names_its_line_what_stands_there_and_the_rule():
    (breach,) = breaches(method("weights = 1\nfiles = torch.load('x')"))
    assert (breach.line, breach.text, breach.rule) == (7, "torch.load", REACH)


def test_an_import_from_its_own_package_is_a_methods_own_affair_and_one_beyond_it_is_not():
    assert (
        breaches(
            "from . import parts\nfrom mine.parts import prune\nimport mine.more", "mine.methods"
        )
        == []
    )
    assert [
        breach.text
        for breach in breaches("from theirs import prune\nimport harness.data.splits", "mine")
    ] == [
        "theirs.prune",
        "harness.data.splits",
    ]
