"""The benchmark: its arithmetic, and what it prints."""

import json
import re

import pytest

from cifar10 import benchmark
from cifar10 import measurements
from cifar10 import model
from cifar10 import networks
from cifar10.networks import softmax
from cifar10.runs import description
from cifar10.util import timing
from tests.conftest import with_batch_size


def test_rates():
  # 100, 200, 300, 400 and 50 a second; 4.5 seconds of CPU for 700.
  windows = [(100, 1.0, 0.5), (100, 0.5, 1.0), (300, 1.0, 1.0),
             (100, 0.25, 1.0), (100, 2.0, 1.0)]
  rate = timing.rate_of(windows)
  assert rate.median == 200
  assert (rate.low, rate.high) == (100, 300)
  assert rate.cpu_seconds == pytest.approx(4.5 / 700)
  assert timing.rate_of(windows[:1]) == (100, 100, 100, 0.005)


def test_repeat_counts_windows_without_the_first_calls(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(timing.time, 'perf_counter', lambda: now[0])
  monkeypatch.setattr(timing.time, 'process_time', lambda: now[0] / 2)
  calls = []

  def call():
    calls.append(None)
    now[0] += 10.0 if len(calls) <= 2 else step

  step = 0.5
  assert timing.repeat(call, 8, 4) == (16.0, 16.0, 16.0, 0.25 / 8)
  assert len(calls) == 2 + 4 * 4
  calls.clear()
  step = 4.0  # Longer than a window.
  assert timing.repeat(call, 8, 4) == (2.0, 2.0, 2.0, 2.0 / 8)
  assert len(calls) == 2 + 4


def test_windows_are_from_summary_to_summary():
  hook = measurements._Windows(description.Run(
      summary_steps=3, recipe=softmax.RECIPE, num_towers=2))
  for _ in range(11):
    hook.after_run(None, None)
  # Of the three windows, the first is left out.
  assert [images for images, _, _ in hook.windows] == [600, 600]


@pytest.fixture(scope='module')
def result(data_dir, tmp_path_factory):
  """What is measured of a small network, in a short time."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(timing, 'WINDOW_SECONDS', 0.01)
    patch.setattr(measurements, '_MATRIX_SIZE', 64)
    directory = tmp_path_factory.mktemp('benchmark')
    trace = directory / 'trace.json'
    run = with_batch_size(
        6, network='softmax', data_dir=data_dir, summary_steps=4,
        dtype='bfloat16', train_dir=str(directory / 'train'))
    measured = benchmark.benchmark(run, ['/cpu:0'] * 2, 3, str(trace))
    return measured, json.loads(trace.read_text())


def test_what_is_measured(result):
  measured, _ = result
  assert set(measured['images_per_sec']) == {
      'input alone', 'one tower, constant batch', 'training program',
      'evaluation'}
  assert set(measured['matrix_product_flops']) == {'float32', 'bfloat16'}
  for group in 'images_per_sec', 'matrix_product_flops':
    for rate in measured[group].values():
      assert 0 < rate['low'] <= rate['median'] <= rate['high']
  assert measured['operations_per_image'] == 2 * 2 * 30720
  assert measured['fraction_of_limit'] == pytest.approx(
      122880 * measured['images_per_sec']['training program']['median']
      / measured['matrix_product_flops']['bfloat16']['median'])
  assert 0 < measured['first_step_secs'] < 60
  assert measured['peak_memory_bytes'] > 1e8
  assert json.loads(json.dumps(measured)) == measured


def test_the_trace_is_of_a_training_step(result):
  names = {event['args']['op'] for event in result[1]['traceEvents']
           if 'op' in event.get('args', {})}
  assert {'IteratorGetNext', 'ResourceApplyGradientDescent'} <= names
  assert any('MatMul' in name for name in names)


def test_table(result):
  measured, _ = result
  measured = {**measured, 'input_bound': True}
  text = benchmark.table(measured)
  assert text.startswith('softmax, bfloat16, 2 x 6 images a step, on /cpu:0, ')
  assert '\nInput-bound: the input alone makes ' in text
  median = measured['images_per_sec']['training program']['median']
  assert f'training program{median:24,.0f}   ' in text
  assert 'Compute-bound' in benchmark.table({**measured, 'input_bound': False})


def test_comparison(monkeypatch, data_dir, tmp_path):
  monkeypatch.setattr(timing, 'WINDOW_SECONDS', 0.0)
  monkeypatch.setattr(measurements, '_MATRIX_SIZE', 64)
  monkeypatch.setattr(networks, 'NETWORKS', {
      name: networks.find(name) for name in ('softmax', 'baseline_cnn')})
  results = benchmark.compare(
      description.Options(data_dir=data_dir, train_dir=str(tmp_path / 'train'),
                          recipe=model.RECIPE), '/cpu:0', 1)
  assert [(r['network'], r['dtype'], r['batch_size']) for r in results] == [
      ('softmax', 'float32', 100), ('softmax', 'bfloat16', 100),
      ('baseline_cnn', 'float32', 64), ('baseline_cnn', 'bfloat16', 64)]
  for r in results[:2]:
    assert r['flops'] == 2 * 2 * 30720 * r['images_per_sec'] > 0
  # The limits are those of the types.
  limits = [r['limit'] for r in results]
  assert limits[:2] == limits[2:] and limits[0] != limits[1]
  assert [r['fraction_of_limit'] for r in results] == [
      r['flops'] / r['limit'] for r in results]
  results = [{**results[0], 'images_per_sec': 1234.4, 'flops': 5.6e9,
              'limit': 71e9, 'fraction_of_limit': 0.078}]
  head, row, limit = benchmark.comparison_table(results).split('\n')
  assert re.split(' {2,}', head) == [
      'network', 'type', 'images a step', 'images/s', 'GFLOP/s']
  assert re.split(' {2,}', row) == [
      'softmax', 'float32', '100', '1,234', '6', '8% of the limit']
  assert 'matrix product: float32 71 GFLOP/s. Convolutions' in limit


@pytest.mark.parametrize('flags, message', [
    (['--trace=/no/such/directory/trace.json'], 'there is no such directory'),
    (['--all', '--batch_size=9', '--trace=trace.json'],
     '--all: expected no --batch_size and no --trace')])
def test_program(run_program, data_dir, flags, message):
  code, out, err = run_program('benchmark', '--json', '--windows=1',
                               f'--data_dir={data_dir}', *flags)
  assert code == 1
  assert message in err and not out
