"""The kernels that Python calls: each is explained where it stands."""

from __future__ import annotations

from gpubp.kernels.cpu.entry import Entry

steps = Entry("gpubp.kernels.cpu.steps", "steps")
count_inputs = Entry("gpubp.kernels.cpu.steps", "count_inputs")
write_records = Entry("gpubp.kernels.cpu.steps", "write_records")
write_sparse_records = Entry("gpubp.kernels.cpu.steps", "write_sparse_records")

multiply = Entry("gpubp.kernels.cpu.operations", "multiply")
activate_blocks = Entry("gpubp.kernels.cpu.operations", "activate_blocks")
pull_back_blocks = Entry("gpubp.kernels.cpu.operations", "pull_back_blocks")
output_blocks = Entry("gpubp.kernels.cpu.operations", "output_blocks")
update_padded = Entry("gpubp.kernels.cpu.operations", "update_padded")
update_spans = Entry("gpubp.kernels.cpu.operations", "update_spans")

deform_rows = Entry("gpubp.kernels.cpu.deform", "deform_rows")
deform_stage = Entry("gpubp.kernels.cpu.deform", "deform_stage")
