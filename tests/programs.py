"""The programs as functions, for tests."""

from cifar10 import eval as eval_lib
from cifar10 import export
from cifar10 import predict
from cifar10.runs import trained


def run_eval(checkpoint_dir, eval_dir, **options):
  """Does what `python -m cifar10.eval` does."""
  eval_lib.evaluate(eval_lib.Options(
      checkpoint_dir=str(checkpoint_dir), eval_dir=str(eval_dir), **options))


def run_eval_once(checkpoint, run, data, eval_data='test', **options):
  """Returns the `eval.Result` of a checkpoint."""
  return eval_lib.evaluate_once(checkpoint, run, data, eval_lib.Options(
      eval_data=eval_data, **options))


def run_predict(paths, checkpoint_dir, run=None, **options):
  """Yields what predict.predict() does."""
  return predict.predict(paths, trained.Options(
      checkpoint_dir=str(checkpoint_dir), **options), run)


def run_export(checkpoint_dir, export_dir, format='saved_model', dtype=None,
               **options):
  """Returns what export.export() does."""
  return export.export(export.Options(
      checkpoint_dir=str(checkpoint_dir), export_dir=str(export_dir),
      format=format, dtype=dtype, **options))
