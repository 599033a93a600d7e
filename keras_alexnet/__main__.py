"""`python -m keras_alexnet`, which is `keras-alexnet`."""

from keras_alexnet.commands.app import main

if __name__ == "__main__":
    main()
