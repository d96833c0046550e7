"""What a determined author might try to see the test split or to fake a cost, and what stops it: rules on the text of a method, or the harness at work."""

import pytest

from tests.test_house import allowed_imports, offences

TRICKS = {  # what is tried in compress(self, model, data)
    "walk the heap": "import gc\nfound = [o for o in gc.get_objects() if isinstance(o, Tensor)]",
    "walk the stack by sys": "import sys\njob = sys._getframe(2).f_locals['job']",
    "walk the stack by a generator": "frame = (x for x in ()).gi_frame.f_back",
    "walk the stack by an exception": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    frame = e.__traceback__.tb_frame.f_back",
    "import the harness": "from harness import data as files",
    "import the harness by string": "import importlib\nfiles = importlib.import_module('harness.data')",
    "import the harness by builtins": "files = __import__('harness.data')",
    "import the harness by torch's own sys": "files = torch.sys.modules['harness.data']",
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
    "keep something for the next point": "import numpy as np\nnp.save('/tmp/x', 1)",
    "keep something by a tensor": "import numpy as np\nnp.zeros(1).tofile('/tmp/x')",
    "ask the network": "import urllib.request",
    "read the environment": "import os\nos.environ['COMPRESSBENCH_DATA']",
    "read the environment by torch": "torch.os.getenv('COMPRESSBENCH_DATA')",
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
}


@pytest.mark.parametrize("trick", TRICKS, ids=TRICKS)
def test_a_trick_is_refused_by_the_rules_on_the_text_of_methods(trick):
    lines = "\n".join(f"        {line}" for line in TRICKS[trick].splitlines())
    source = f"class Trick(Method):\n    def compress(self, model, data):\n{lines}\n        return model\n"
    assert offences(source) or not allowed_imports(source)
