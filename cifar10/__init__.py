"""TensorFlow's CIFAR-10 tutorial, graph and session, for today's TensorFlow.

Other programs can rely on these names; the major version changes when one of
them, a file format or a flag changes so that something stops working:

    cifar10.UserError                   the errors that a user can fix
    cifar10.recipe.Recipe               all hyperparameters of a training
    cifar10.networks.NETWORKS           the networks by name; add yours
    cifar10.runs.description.Options    what a user chooses for a training
    cifar10.runs.description.Run        a training, as in run.json
    cifar10.train.train                 trains on one device
    cifar10.multi_gpu_train.train       trains on several
    cifar10.eval.Options                options of...
    cifar10.eval.evaluate               ...evaluation
    cifar10.predict.Options             options of...
    cifar10.predict.predict             ...classification of image files
    cifar10.export.Options              options of...
    cifar10.export.export               ...export for use without this package
    cifar10.runs.trained                a trained network in a graph of yours
    cifar10.nn.layers                   layers for networks
    cifar10.nn.augmentation             distortions of images

Importing the package or any of its modules registers no flag and switches
nothing in TensorFlow: everything is built inside an explicit `tf.Graph()`.
"""

import signal
import sys

from cifar10.util.errors import UserError

__all__ = ['UserError']
__version__ = '2.0.0'

if sys.argv[:1] == ['-m'] and any(
    argument.startswith('cifar10.') for argument in sys.orig_argv):
  # This is a program, and will import TensorFlow, which takes seconds: until
  # `cli.run()`, Ctrl-C ends it without a traceback.
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
