"""Programs whose bytes and FLOPs are known by hand, and what XLA counts on a CPU."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from spectral_dd.planning.hlo import Program

KB = 1024.0
# Seven images of 8x8 with 16 channels, as a GPU's program has them: a library's call with a workspace.
CONVOLUTION = """
ENTRY %main (x: bf16[7,8,8,16], k: bf16[32,3,3,16]) -> bf16[7,8,8,32] {
  %x = bf16[7,8,8,16]{3,2,1,0} parameter(0)
  %k = bf16[32,3,3,16]{3,2,1,0} parameter(1)
  %conv.1 = (bf16[7,8,8,32]{3,2,1,0}, u8[9999]{0}) custom-call(%x, %k), window={size=3x3 pad=1_1x1_1}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
  ROOT %y = bf16[7,8,8,32]{3,2,1,0} get-tuple-element(%conv.1), index=0
}
"""
# An update in place of 4 of 256 numbers, and a slice of the same size of an operand.
FUSION = """
%inside (a: f32[256], b: f32[256], i: s32[]) -> f32[256] {
  %a = f32[256]{0} parameter(0)
  %b = f32[256]{0} parameter(1)
  %i = s32[] parameter(2)
  %part = f32[4]{0} dynamic-slice(%b, %i), dynamic_slice_sizes={4}
  %negated = f32[4]{0} negate(%part)
  ROOT %updated = f32[256]{0} dynamic-update-slice(%a, %negated, %i)
}

ENTRY %main (a: f32[256], b: f32[256], i: s32[]) -> f32[256] {
  %a = f32[256]{0} parameter(0)
  %b = f32[256]{0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %fused = f32[256]{0} fusion(%a, %b, %i), kind=kLoop, calls=%inside
}
"""
# Three members, one after another; of each, steps in a loop of unknown length. A step copies one KiB.
LOOPS = """
%less (c: (f32[256], s32[], s32[])) -> pred[] {
  %c = (f32[256]{0}, s32[], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%c), index=1
  %stop = s32[] get-tuple-element(%c), index=2
  ROOT %less_than = pred[] compare(%i, %stop), direction=LT
}

%step (s: (f32[256])) -> (f32[256]) {
  %s = (f32[256]{0}) parameter(0)
  %x = f32[256]{0} get-tuple-element(%s), index=0
  %moved = f32[256]{0} copy(%x)
  ROOT %t = (f32[256]{0}) tuple(%moved)
}

%member (m: (f32[256])) -> (f32[256]) {
  %m = (f32[256]{0}) parameter(0)
  %y = f32[256]{0} get-tuple-element(%m), index=0
  %first = f32[256]{0} copy(%y)
  %u = (f32[256]{0}) tuple(%first)
  ROOT %steps = (f32[256]{0}) while(%u), condition=%less, body=%step
}

ENTRY %main (p: f32[256]) -> (f32[256]) {
  %p = f32[256]{0} parameter(0)
  %v = (f32[256]{0}) tuple(%p)
  ROOT %members = (f32[256]{0}) while(%v), condition=%less, body=%member, \
backend_config={"known_trip_count":{"n":"3"}}
}
"""
# A kernel that is fetched into the fast memory of a TPU core once and read there.
PREFETCHED = """
ENTRY %main (k: bf16[512]) -> bf16[512] {
  %k = bf16[512]{0:T(1024)} parameter(0)
  %start = (bf16[512]{0:T(1024)S(1)}, bf16[512]{0:T(1024)}, u32[]{:S(2)}) copy-start(%k)
  %here = bf16[512]{0:T(1024)S(1)} copy-done(%start)
  %all-gather.1 = bf16[512]{0:T(1024)} all-gather(%here), dimensions={0}
  ROOT %y = bf16[512]{0:T(1024)} negate(%here)
}
"""


def test_a_convolution_of_a_library_reads_its_operands_and_writes_its_result_but_no_workspace():
    cost = Program(CONVOLUTION).cost()
    assert cost.bytes == 2 * (7 * 64 * 16 + 32 * 9 * 16 + 7 * 64 * 32)
    # Of 8 + 8 + 8 taps along a side, two fall on the padding.
    assert cost.flops == 2 * 7 * 16 * 32 * (3 * 8 - 2) ** 2
    assert cost.by_kind == {"cudnn convForward": cost.bytes}


@pytest.mark.parametrize(("what", "image", "kernel"), [("BackwardInput", "dy", "k"), ("BackwardFilter", "x", "dy")])
def test_gradients_take_the_flops_of_the_convolution(what, image, kernel):
    shapes = {"x": "bf16[7,8,8,16]", "k": "bf16[32,3,3,16]", "dy": "bf16[7,8,8,32]"}
    (result,) = shapes.keys() - {image, kernel}
    text = f"""
ENTRY %main (a: {shapes[image]}, b: {shapes[kernel]}) -> {shapes[result]} {{
  %a = {shapes[image]} parameter(0)
  %b = {shapes[kernel]} parameter(1)
  ROOT %c = ({shapes[result]}, u8[0]) custom-call(%a, %b), window={{size=3x3 pad=1_1x1_1}}, \
dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$conv{what}"
}}
"""
    assert Program(text).cost().flops == Program(CONVOLUTION).cost().flops


def test_a_fusion_reads_what_it_slices_and_writes_what_it_updates():
    assert Program(FUSION).cost().bytes == 16 + 4 + 16


def test_loops_count_as_often_as_they_run():
    program = Program(LOOPS)
    assert program.cost().bytes == 3 * (2 * KB + 2 * KB)
    assert program.cost(unknown_trips=5).bytes == 3 * (2 * KB + 5 * 2 * KB)
    assert program.step().bytes == 3 * 2 * KB  # of all members


def test_cycles_are_those_that_the_compiler_expects_as_often_as_they_run():
    window = 'copy(%x), backend_config={"window_config":{"estimated_cycles":"700","is_mask":false}}'
    program = Program(LOOPS.replace("copy(%x)", window))
    assert program.step().cycles == 3 * 700
    assert program.cost(unknown_trips=5).cycles == 3 * 5 * 700


def test_a_loop_up_to_a_constant_is_of_known_length():
    """As the compilers of TPUs leave it, for a gather inside of a step."""
    gather = LOOPS.replace('backend_config={"known_trip_count":{"n":"3"}}', "")
    for name in ("%stop = s32[] get-tuple-element(%c), index=2", "%stop = s32[]{:T(128)} constant(3)"):
        program = Program(gather.replace("%stop = s32[] get-tuple-element(%c), index=2", name))
        assert program.cost(unknown_trips=5).bytes == (3 * (2 + 3 * 2) if "constant" in name else 5 * (2 + 2)) * KB


def test_fast_memory_costs_nothing_and_collectives_are_counted():
    program = Program(PREFETCHED)
    assert program.cost().bytes == KB + KB + KB  # fetched, gathered, negated
    assert program.collectives() == 1 and program.host_transfers() == 0


def test_elements_products_and_convolutions_are_counted_as_xla_counts_them():
    x, k = jnp.ones((4, 8, 8, 3)), jnp.ones((3, 3, 3, 5))

    def convolution(x, k):
        return lax.conv_general_dilated(x, k, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def program(x, k):
        return jnp.sin(x) * 2, x.reshape(32, 24) @ x.reshape(24, 32), convolution(x, k)

    compiled = jax.jit(program).lower(x, k).compile()
    expected, found = compiled.cost_analysis(), Program(compiled.as_text()).cost()
    # XLA counts the operations on single numbers as well.
    assert found.bytes == pytest.approx(expected["bytes accessed"], rel=0.02)
    products = jax.jit(lambda x, k: program(x, k)[1:]).lower(x, k).compile().cost_analysis()["flops"]
    assert found.flops == pytest.approx(products, rel=0.01)
