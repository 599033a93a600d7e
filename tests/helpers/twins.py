"""Plain PyTorch networks that the models are compared with.

Written by hand from the published descriptions alone, not from this project's own tables, so that
a number that is wrong there shows as a difference.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

Size = tuple[int, int]


def build(
    name: str, *, classes: int, aux_heads: bool = False, size: Size | None = None
) -> nn.Module:
    """The network in inference mode; `size` is the height and width of its images."""
    if name in GOOGLENETS:
        network = GOOGLENETS[name](classes, size or (224, 224), aux_heads)
    elif aux_heads:
        raise ValueError(f"{name} has no auxiliary heads")
    else:
        function, own_size = ALEXNETS[name]
        network = function(classes, size or own_size)
    return network.eval()


# --- AlexNets and LeNet-5: `features.N`, `classifier.N` ------------------------------------------


class Stacks(nn.Module):
    """Convolutional stack, pooling to a fixed size where there is one, dense stack."""

    def __init__(
        self, features: nn.Sequential, classifier: nn.Sequential, avgpool: nn.Module | None = None
    ):
        super().__init__()
        self.features = features
        self.avgpool = avgpool
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        maps = self.features(images)
        if self.avgpool is not None:
            maps = self.avgpool(maps)
        return self.classifier(maps.flatten(1))


def flat_width(features: nn.Module, size: Size, channels: int = 3) -> int:
    """Number of values of one image's feature maps; computes shapes only."""
    on_meta = copy.deepcopy(features).to("meta").eval()
    return on_meta(torch.empty(1, channels, *size, device="meta")).numel()


def dropout_first(width: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(width, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, classes),
    )


def dropout_last(width: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(4096, classes),
    )


def alexnet_lrn(classes: int, size: Size) -> nn.Module:
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
    # The pooling makes the dense layers independent of the images' size.
    return Stacks(features, dropout_first(256 * 6 * 6, classes), nn.AdaptiveAvgPool2d(6))


def alexnet_bn_cifar100(classes: int, size: Size) -> nn.Module:
    features = nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4),
        nn.BatchNorm2d(96),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
    return Stacks(features, dropout_last(flat_width(features, size), classes))


def alexnet_paper(classes: int, size: Size) -> nn.Module:
    features = nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2),
        nn.ReLU(),
        nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
    return Stacks(features, dropout_first(flat_width(features, size), classes))


def alexnet_wide(classes: int, size: Size) -> nn.Module:
    features = nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
    return Stacks(features, dropout_last(flat_width(features, size), classes))


def alexnet_cifar(classes: int, size: Size) -> nn.Module:
    features = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=2),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 192, 3, padding=2),
        nn.BatchNorm2d(192),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.BatchNorm2d(384),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.BatchNorm2d(256),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.BatchNorm2d(256),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
    classifier = nn.Sequential(
        nn.Dropout(0.2),
        nn.Linear(flat_width(features, size), 2048),
        nn.BatchNorm1d(2048),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(2048, 2048),
        nn.BatchNorm1d(2048),
        nn.ReLU(),
        nn.Linear(2048, classes),
        nn.BatchNorm1d(classes),
    )
    return Stacks(features, classifier)


def lenet5(classes: int, size: Size) -> nn.Module:
    features = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.Sigmoid(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Sigmoid(),
        nn.AvgPool2d(2),
    )
    classifier = nn.Sequential(
        nn.Linear(flat_width(features, size, channels=1), 120),
        nn.Sigmoid(),
        nn.Linear(120, 84),
        nn.Sigmoid(),
        nn.Linear(84, classes),
    )
    return Stacks(features, classifier)


# --- AlexNets with Caffe's layer names -----------------------------------------------------------


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's 'same' padding: the odd row or column is added at the end."""

    def forward(self, maps: Tensor) -> Tensor:
        pads = []  # of the last dimension first
        for extent, kernel, stride in zip(
            maps.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            total = max((-(-extent // stride) - 1) * stride + kernel - extent, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(maps, pads))


def named_dense(features: OrderedDict[str, nn.Module], classes: int, size: Size) -> nn.Module:
    """`features` followed by the three dense layers, as one stack."""
    return nn.Sequential(
        OrderedDict(
            **features,
            flatten=nn.Flatten(),
            fc6=nn.Linear(flat_width(nn.Sequential(features), size), 4096),
            relu6=nn.ReLU(),
            drop6=nn.Dropout(0.5),
            fc7=nn.Linear(4096, 4096),
            relu7=nn.ReLU(),
            drop7=nn.Dropout(0.5),
            fc8=nn.Linear(4096, classes),
        )
    )


def alexnet_caffe(classes: int, size: Size) -> nn.Module:
    # The weights' alpha, 2e-5, multiplies the plain sum; PyTorch's is divided by the size first.
    lrn = partial(nn.LocalResponseNorm, 2 * 2 + 1, alpha=2e-5 * 5, beta=0.75, k=1)
    features = OrderedDict(
        conv1=nn.Conv2d(3, 96, 11, stride=4),
        relu1=nn.ReLU(),
        norm1=lrn(),
        pool1=nn.MaxPool2d(3, 2),
        conv2=nn.Conv2d(96, 256, 5, padding=2, groups=2),
        relu2=nn.ReLU(),
        norm2=lrn(),
        pool2=nn.MaxPool2d(3, 2),
        conv3=nn.Conv2d(256, 384, 3, padding=1),
        relu3=nn.ReLU(),
        conv4=nn.Conv2d(384, 384, 3, padding=1, groups=2),
        relu4=nn.ReLU(),
        conv5=nn.Conv2d(384, 256, 3, padding=1, groups=2),
        relu5=nn.ReLU(),
        pool5=nn.MaxPool2d(3, 2),
    )
    return named_dense(features, classes, size)


def caffenet(classes: int, size: Size) -> nn.Module:
    """Of the same layers, but each pooling stands before its normalisation."""
    layers = alexnet_caffe(classes, size)._modules
    names = list(layers)
    for number in "12":
        norm, pool = names.index(f"norm{number}"), names.index(f"pool{number}")
        names[norm], names[pool] = names[pool], names[norm]
    return nn.Sequential(OrderedDict((name, layers[name]) for name in names))


def alexnet_keras(classes: int, size: Size) -> nn.Module:
    features = OrderedDict(
        conv1=SameConv2d(3, 96, 11, stride=4),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(3, 2),
        conv2=SameConv2d(96, 256, 5),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(3, 2),
        conv3=SameConv2d(256, 384, 3),
        relu3=nn.ReLU(),
        conv4=SameConv2d(384, 384, 3),
        relu4=nn.ReLU(),
        conv5=SameConv2d(384, 256, 3),
        relu5=nn.ReLU(),
        pool5=nn.MaxPool2d(3, 2),
    )
    return named_dense(features, classes, size)


# --- GoogLeNets ----------------------------------------------------------------------------------

# Output channels: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection.
BLOCKS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
# Input channels of each block: what the one before it puts out.
INPUTS = dict(
    zip(BLOCKS, [192, *(a + c + e + f for a, _, c, _, e, f in BLOCKS.values())], strict=False)
)


class Unit(nn.Module):
    """Convolution with bias, batch norm if wanted, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride=1, padding=0, *, norm: bool = False
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding)
        self.bn = nn.BatchNorm2d(outputs) if norm else None

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.conv(maps)
        if self.bn is not None:
            maps = self.bn(maps)
        return torch.relu(maps)


class Inception(nn.Module):
    """Block of four branches; the lab's has batch norm and two 3x3 in the place of the 5x5."""

    def __init__(self, block: str, *, lab: bool):
        super().__init__()
        inputs = INPUTS[block]
        one, three_reduce, three, five_reduce, five, projection = BLOCKS[block]
        unit = partial(Unit, norm=lab)
        self.branch1 = unit(inputs, one, 1)
        self.branch2 = nn.Sequential(
            unit(inputs, three_reduce, 1), unit(three_reduce, three, 3, padding=1)
        )
        self.branch3 = nn.Sequential(unit(inputs, five_reduce, 1))
        if lab:
            self.branch3.append(unit(five_reduce, five, 3, padding=1))
            self.branch3.append(unit(five, five, 3, padding=1))
        else:
            self.branch3.append(unit(five_reduce, five, 5, padding=2))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), unit(inputs, projection, 1))

    def forward(self, maps: Tensor) -> Tensor:
        branches = self.branch1, self.branch2, self.branch3, self.branch4
        return torch.cat([branch(maps) for branch in branches], dim=1)


class Aux(nn.Module):
    """Auxiliary classifier."""

    def __init__(self, inputs: int, area: int, classes: int):
        super().__init__()
        self.pool = nn.AvgPool2d(5, 3)
        self.conv = Unit(inputs, 128, 1)
        self.fc1 = nn.Linear(128 * area, 1024)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, classes)

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.conv(self.pool(maps))
        return self.fc2(self.dropout(self.relu(self.fc1(maps.flatten(1)))))


class TwoHeads(nn.Module):
    """Network with two auxiliary classifiers. Children define `maps` and `logits`."""

    aux_names: tuple[str, str]

    def add_aux_heads(self, head: Callable[..., nn.Module], classes: int, size: Size) -> None:
        on_meta = copy.deepcopy(self).to("meta").eval()
        *maps, _ = on_meta.maps(torch.empty(1, 3, *size, device="meta"))
        for name, read in zip(self.aux_names, maps, strict=True):
            area = nn.AvgPool2d(5, 3)(read)[0, 0].numel()
            self.add_module(name, head(read.shape[1], area, classes))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        at_4a, at_4d, last = self.maps(images)
        logits = self.logits(last)
        first, second = (getattr(self, name, None) for name in self.aux_names)
        if self.training and first is not None:
            return logits, first(at_4a), second(at_4d)
        return logits


class GoogLeNet(TwoHeads):
    """`googlenet_lab` or, with `lab=False`, `googlenet_paper`."""

    aux_names = ("aux1", "aux2")

    def __init__(self, classes: int, size: Size, aux_heads: bool, *, lab: bool):
        super().__init__()
        if lab:
            pool = partial(nn.MaxPool2d, 3, 2, padding=1)
            lrn = partial(nn.LocalResponseNorm, 5, alpha=1e-4, beta=0.75, k=2)
        else:
            pool = partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
            lrn = partial(nn.LocalResponseNorm, 5, alpha=1e-4, beta=0.75, k=1)
        block = partial(Inception, lab=lab)
        self.conv1 = Unit(3, 64, 7, stride=2, padding=3)
        self.maxpool1 = pool()
        self.norm1 = lrn()
        self.conv2 = Unit(64, 64, 1)
        self.conv3 = Unit(64, 192, 3, padding=1)
        self.norm2 = lrn()
        self.maxpool2 = pool()
        self.inception3a = block("3a")
        self.inception3b = block("3b")
        self.maxpool3 = pool()
        self.inception4a = block("4a")
        self.inception4b = block("4b")
        self.inception4c = block("4c")
        self.inception4d = block("4d")
        self.inception4e = block("4e")
        self.maxpool4 = pool()
        self.inception5a = block("5a")
        self.inception5b = block("5b")
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.4)
        self.fc = nn.Linear(1024, classes)
        if aux_heads:
            self.add_aux_heads(Aux, classes, size)

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.norm1(self.maxpool1(self.conv1(images)))
        maps = self.maxpool2(self.norm2(self.conv3(self.conv2(maps))))
        maps = self.maxpool3(self.inception3b(self.inception3a(maps)))
        at_4a = self.inception4a(maps)
        at_4d = self.inception4d(self.inception4c(self.inception4b(at_4a)))
        maps = self.maxpool4(self.inception4e(at_4d))
        return at_4a, at_4d, self.inception5b(self.inception5a(maps))

    def logits(self, maps: Tensor) -> Tensor:
        return self.fc(self.dropout(self.avgpool(maps).flatten(1)))


# --- GoogLeNet with Caffe's layer names ----------------------------------------------------------


def stack(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


class CaffeInception(nn.Module):
    """Block of four branches."""

    def __init__(self, block: str):
        super().__init__()
        inputs = INPUTS[block]
        one, three_reduce, three, five_reduce, five, projection = BLOCKS[block]
        self.add("1x1", nn.Conv2d(inputs, one, 1))
        self.add("3x3_reduce", nn.Conv2d(inputs, three_reduce, 1))
        self.add("3x3", nn.Conv2d(three_reduce, three, 3, padding=1))
        self.add("5x5_reduce", nn.Conv2d(inputs, five_reduce, 1))
        self.add("5x5", nn.Conv2d(five_reduce, five, 5, padding=2))
        self.pool = nn.MaxPool2d(3, 1, padding=1)
        self.add("pool_proj", nn.Conv2d(inputs, projection, 1))

    def add(self, name: str, conv: nn.Conv2d) -> None:
        self.add_module(name, conv)
        self.add_module(f"relu_{name}", nn.ReLU())

    def run(self, maps: Tensor, *names: str) -> Tensor:
        for name in names:
            maps = getattr(self, f"relu_{name}")(getattr(self, name)(maps))
        return maps

    def forward(self, maps: Tensor) -> Tensor:
        branches = [
            self.run(maps, "1x1"),
            self.run(maps, "3x3_reduce", "3x3"),
            self.run(maps, "5x5_reduce", "5x5"),
            self.run(self.pool(maps), "pool_proj"),
        ]
        return torch.cat(branches, dim=1)


def caffe_aux(inputs: int, area: int, classes: int) -> nn.Module:
    return stack(
        ave_pool=nn.AvgPool2d(5, 3),
        conv=nn.Conv2d(inputs, 128, 1),
        relu_conv=nn.ReLU(),
        flatten=nn.Flatten(),
        fc=nn.Linear(128 * area, 1024),
        relu_fc=nn.ReLU(),
        drop_fc=nn.Dropout(0.7),
        classifier=nn.Linear(1024, classes),
    )


class CaffeGoogLeNet(TwoHeads):
    """`googlenet_caffe`, the "/" of Caffe's names as nesting."""

    aux_names = ("loss1", "loss2")

    def __init__(self, classes: int, size: Size, aux_heads: bool):
        super().__init__()
        pool = partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
        lrn = partial(nn.LocalResponseNorm, 5, alpha=1e-4, beta=0.75, k=1)
        conv1 = {"7x7_s2": nn.Conv2d(3, 64, 7, stride=2, padding=3), "relu_7x7_s2": nn.ReLU()}
        self.conv1 = stack(**conv1)
        self.pool1 = stack(**{"3x3_s2": pool(), "norm1": lrn()})
        conv2 = {
            "3x3_reduce": nn.Conv2d(64, 64, 1),
            "relu_3x3_reduce": nn.ReLU(),
            "3x3": nn.Conv2d(64, 192, 3, padding=1),
            "relu_3x3": nn.ReLU(),
            "norm2": lrn(),
        }
        self.conv2 = stack(**conv2)
        self.pool2 = stack(**{"3x3_s2": pool()})
        self.inception_3a = CaffeInception("3a")
        self.inception_3b = CaffeInception("3b")
        self.pool3 = stack(**{"3x3_s2": pool()})
        self.inception_4a = CaffeInception("4a")
        self.inception_4b = CaffeInception("4b")
        self.inception_4c = CaffeInception("4c")
        self.inception_4d = CaffeInception("4d")
        self.inception_4e = CaffeInception("4e")
        self.pool4 = stack(**{"3x3_s2": pool()})
        self.inception_5a = CaffeInception("5a")
        self.inception_5b = CaffeInception("5b")
        self.pool5 = stack(**{"7x7_s1": nn.AdaptiveAvgPool2d(1), "drop_7x7_s1": nn.Dropout(0.4)})
        self.loss3 = stack(classifier=nn.Linear(1024, classes))
        if aux_heads:
            self.add_aux_heads(caffe_aux, classes, size)

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.pool2(self.conv2(self.pool1(self.conv1(images))))
        maps = self.pool3(self.inception_3b(self.inception_3a(maps)))
        at_4a = self.inception_4a(maps)
        at_4d = self.inception_4d(self.inception_4c(self.inception_4b(at_4a)))
        maps = self.pool4(self.inception_4e(at_4d))
        return at_4a, at_4d, self.inception_5b(self.inception_5a(maps))

    def logits(self, maps: Tensor) -> Tensor:
        return self.loss3(self.pool5(maps).flatten(1))


# Name -> function of the number of classes and the images' size, the network's own size.
ALEXNETS: dict[str, tuple[Callable[[int, Size], nn.Module], Size]] = {
    "alexnet_lrn": (alexnet_lrn, (224, 224)),
    "alexnet_bn_cifar100": (alexnet_bn_cifar100, (227, 227)),
    "alexnet_paper": (alexnet_paper, (224, 224)),
    "alexnet_caffe": (alexnet_caffe, (227, 227)),
    "caffenet": (caffenet, (227, 227)),
    "alexnet_cifar": (alexnet_cifar, (32, 32)),
    "alexnet_keras": (alexnet_keras, (224, 224)),
    "alexnet_wide": (alexnet_wide, (224, 224)),
    "lenet5": (lenet5, (28, 28)),
}
# Name -> function of the number of classes, the images' size and whether there are aux heads.
GOOGLENETS: dict[str, Callable[[int, Size, bool], nn.Module]] = {
    "googlenet_lab": partial(GoogLeNet, lab=True),
    "googlenet_paper": partial(GoogLeNet, lab=False),
    "googlenet_caffe": CaffeGoogLeNet,
}
NAMES = (*ALEXNETS, *GOOGLENETS)
