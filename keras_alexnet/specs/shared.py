"""Evaluation preprocessing and initialisers that several specs share, each with its source."""

from keras_alexnet.specs.preprocessing import Preprocessing
from keras_alexnet.specs.schema import Init, Normal, Uniform

# torchvision/transforms/_presets.py, ImageClassification(crop_size=224): all AlexNet and GoogLeNet
# weights of torchvision.
IMAGENET = Preprocessing()


def caffe_preprocessing(crop: int, mean: tuple[float, ...]) -> Preprocessing:
    """Return Caffe's evaluation preprocessing: B, G, R of 0..255 less their mean."""
    return Preprocessing(256, (crop, crop), mean, (1.0, 1.0, 1.0), channels="BGR", scale=1.0)


# torchvision/models/googlenet.py, GoogLeNet._transform_input: from the ImageNet statistics above
# to mean .5 and deviation .5 in every channel; scale and offset in float64, as there.
TRANSFORM_INPUT_SCALE = tuple(std / 0.5 for std in IMAGENET.std)
TRANSFORM_INPUT_OFFSET = tuple((mean - 0.5) / 0.5 for mean in IMAGENET.mean)

# PyTorch's default of Conv2d and Linear: Kaiming-uniform with a = sqrt(5), the bias alike. The
# bound is 1/sqrt(fan-in).
TORCH_INIT = Init(Uniform(1 / 3, "fan_in"), bias=None)

# Keras' default of Conv2D and Dense: Glorot-uniform, no bias.
KERAS_INIT = Init(Uniform(1.0, "fan_avg"), bias=0.0)

# torchvision/models/googlenet.py: truncated normal with bounds at +-2, which are 200 deviations
# away, so that nothing is cut off. The biases of its dense layers keep PyTorch's default.
TORCHVISION_GOOGLENET_INIT = Init(Normal(0.01), bias=None)

# BVLC's bvlc_googlenet/train_val.prototxt: the filler "xavier" (uniform, variance 1/fan-in), biases
# of .2, but of 0 in the classifiers.
CAFFE_GOOGLENET_INIT = Init(Uniform(1.0, "fan_in"), bias=0.2)
CAFFE_CLASSIFIER_INIT = Init(Uniform(1.0, "fan_in"), bias=0.0)

# Weight of each auxiliary head's loss beside the main one's: Szegedy et al. 2014, section 5, and
# torchvision's references/classification/train.py.
AUX_LOSS_WEIGHT = 0.3
