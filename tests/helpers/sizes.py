"""Small image sizes at which the tests run each model that torchvision does not have.

Odd and no squares; the last feature map is larger than one pixel, so that the order of a flatten
shows, and the dense layers behind it are smaller than at the model's own size.
"""

ODD_SIZES = {
    "alexnet_lrn": (95, 79),
    "alexnet_bn_cifar100": (99, 83),
    "alexnet_paper": (95, 79),
    "alexnet_caffe": (99, 83),
    "caffenet": (99, 83),
    "alexnet_cifar": (33, 37),
    "alexnet_keras": (95, 79),
    "alexnet_wide": (95, 79),
    "lenet5": (29, 31),
    "googlenet_lab": (97, 83),
    "googlenet_paper": (97, 83),
    "googlenet_caffe": (97, 83),
}
