import threading

import jax
import numpy as np

from gradflow.report.programs import Program, compile_together


def test_each_program_is_compiled_once_for_a_shape(monkeypatch):
    compiled = []
    monkeypatch.setattr(Program, "compile", lambda self, x: compiled.append((self, x.shape)))
    one, other = Program(np.sin), Program(np.cos)
    x, y = np.zeros(2), np.zeros(3)
    compile_together([(one, (x,)), (one, (x + 1,)), (one, (y,)), (other, (x,))])
    assert sorted(compiled, key=str) == sorted([(one, (2,)), (one, (3,)), (other, (2,))], key=str)


def test_threads_compile_in_the_precision_of_the_run():
    seen = []

    def function(x):
        seen.append((x.dtype, threading.current_thread() is threading.main_thread()))
        return 2 * x

    program = Program(function)
    with jax.enable_x64(True):
        compile_together([(program, (np.ones(3),))])
        np.testing.assert_array_equal(program(np.ones(3)), 2.0)
    # Traced once, in another thread, and in float64: the call found what was compiled.
    assert seen == [(np.float64, False)]
