"""The contract suite: every registered method passes it, and each kind of bad adapter fails exactly the right check."""

import io
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
import torch
from rich.console import Console

from tdabench.benchmark.contract import effects, suite
from tdabench.benchmark.contract.rules import RULES, deviation
from tdabench.benchmark.contract.subject import BackwardsView
from tdabench.benchmark.contract.suite import check_method
from tdabench.benchmark.contract.tiny import N_PLANTED, TWIN, offering, planted_ids, tiny_problem
from tdabench.datasets.truth import Assets, Truth
from tdabench.errors import UserError
from tdabench.methods import registry
from tdabench.methods.support import unsupported
from tdabench.methods.view import View
from tdabench.models.training import train

torch.set_num_threads(1)

PLUGIN = """
import os, random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from tdabench.methods import Estimate, Law, Method, register

VERSION = 1


@dataclass(frozen=True)
class Params:
    power: object = 1.0


@register("{name}")
class Adapter(Method):
    Params = Params
    presets = {{"paper": Params(), "quick": Params()}}
    {attribute}

    def fit(self, view):
        {fit}

    def attribute(self, view, state, queries):
        out = torch.zeros(len(queries), len(view.train), dtype=torch.float32)
        {begin}
        for part, batch in view.batches(16):
            x = batch.x.clone()
            {each}
            out[:, part] = -torch.cdist(queries.x.flatten(1), x.flatten(1))
        {end}
        return out
"""
NOISE = "out += 1e-2 * torch.rand(48, generator=torch.Generator().manual_seed({}))"
ESTIMATE = "estimate = lambda self, sizes: Estimate(forward={})"
LOSSES = "view.losses(view.model(), view.train.batch(torch.arange(48)), view.draws(1, Law('even')))"
OPTIMIZER = "view.optimizer(view.model().parameters())"
SAVE = "safetensors.torch.save_file({'x': torch.ones(1)}, {})"
OPEN_TRUTH = "Path(os.environ['TRUTH_HERE'])"

# What is put where in the plugin above, and the one check that must fail.
BAD = {
    "shape": ({"end": "out = out[:, 1:]"}, "scores"),
    "transposed": ({"end": "out = out.T"}, "scores"),
    "float64": ({"end": "out = out.double()"}, "scores"),
    "gap": ({"end": "return [(slice(0, 40), out[:, :40])]"}, "scores"),
    "overlap": ({"end": "return [(slice(0, 40), out[:, :40]), (slice(30, 48), out[:, 30:])]"}, "scores"),
    "nan": ({"end": "out[0, 0] = float('nan')"}, "finite"),
    "infinite": ({"end": "out[0, 0] = -float('inf')"}, "finite"),
    "raises": ({"end": "out = out / queries"}, "runs"),
    "undeclared-recipe": ({"fit": OPTIMIZER}, "runs"),
    "undeclared-checkpoints": ({"fit": "view.model(20)"}, "runs"),
    "undeclared-members": ({"fit": "view.stored_scores['pixel']"}, "runs"),
    "torch-random": ({"end": "out += 1e-2 * torch.rand(out.shape)"}, "random state"),
    "numpy-random": ({"end": "out += 1e-2 * np.random.rand()"}, "random state"),
    "python-random": ({"end": "out += 1e-2 * random.random()"}, "random state"),
    "seeds-globally": ({"fit": "torch.manual_seed(0)"}, "random state"),
    "entropy": ({"end": NOISE.format("int.from_bytes(os.urandom(4))")}, "deterministic"),
    "forked-random": ({"end": "with torch.random.fork_rng(): out += 1e-2 * torch.rand(out.shape)"}, "deterministic"),
    "query-position": ({"end": "out += torch.arange(len(queries) * 48).view(-1, 48) % 7"}, "query slicing"),
    "counts-its-calls": (
        {"attribute": "calls = 0", "end": "self.calls += 1; out += self.calls * torch.arange(48) % 7"},
        "query slicing",
    ),
    "query-mean": ({"end": "out -= out.mean(0)"}, "query slicing"),
    "micro-batch": ({"end": NOISE.format("view.micro_batch")}, "micro-batch"),
    "batch-position": ({"each": "x += 0.1 * torch.randn(x.shape, generator=view.rng('noise'))"}, "training order"),
    "batch-order": ({"begin": "n = 0", "each": "n += 1; x += 0.1 * n"}, "training order"),
    "weights": ({"fit": "view.problem.weights[60]['conv_in.bias'].add_(1)"}, "problem"),
    "images": ({"fit": "view.train.images.mul_(0.5)"}, "problem"),
    "queries-in-fit": ({"fit": "view.problem.queries.x"}, "runs"),
    "counts-queries-in-fit": ({"fit": "len(view.problem.queries)"}, "runs"),
    "queries-behind-attribute": ({"end": "view.problem.queries.pick([0])"}, "runs"),
    "negative-magnitude": ({"attribute": "sign = 'magnitude'"}, "sign"),
    "more-than-estimated": ({"attribute": ESTIMATE.format("sizes.n_items - 1"), "fit": LOSSES}, "estimate"),
    "backward-not-estimated": ({"attribute": ESTIMATE.format(99), "fit": f"{LOSSES}.sum().backward()"}, "estimate"),
    "beside-scratch": ({"fit": "(view.scratch.parent / 'x').write_text('x')"}, "scratch"),
    "relative": ({"fit": "Path('x').write_text('x')"}, "scratch"),
    "native": ({"fit": SAVE.replace("{}", "str(view.scratch.parent / 'x')")}, "scratch"),
    "makes-folder": ({"fit": "os.mkdir(view.scratch.parent / 'x')"}, "scratch"),
    "truth": ({"fit": OPEN_TRUTH + ".read_bytes()"}, "truth"),
    "native-truth": ({"fit": f"safetensors.torch.load_file({OPEN_TRUTH})"}, "truth"),
    "environ": ({"fit": "os.environ['TDABENCH_SPOILT'] = '1'"}, "process state"),
    "cwd": ({"fit": "os.chdir(view.scratch)"}, "process state"),
    "dtype": ({"end": "torch.set_default_dtype(torch.float64)"}, "process state"),
    "threads": ({"end": "torch.set_num_threads(2)"}, "process state"),
    "grad-mode": ({"end": "torch.set_grad_enabled(False)"}, "process state"),
    "no-quick": ({"attribute": "presets = {'paper': Params()}"}, "presets"),
    "no-paper": ({"attribute": "presets = {'quick': Params()}"}, "presets"),
    "odd-preset": ({"attribute": "presets = {'paper': Params(), 'quick': Params(), 'odd': 1}"}, "presets"),
    "not-json": ({"attribute": "presets = {'paper': Params(), 'quick': Params(torch.float32)}"}, "params"),
    "nested": ({"attribute": "presets = {'paper': Params(), 'quick': Params(Params())}"}, "params"),
    "computed": ({"attribute": "version = VERSION"}, "listing"),
    "annotated": ({"attribute": "version: int = VERSION"}, "listing"),
    "unknown-kind": ({"attribute": "query_kinds = ('imagined',)"}, "listing"),
    "indifferent": ({"end": "out = torch.arange(48.0).expand(len(queries), -1)"}, "planted copy"),
    "wrong-sign": ({"end": "out = -out"}, "planted copy"),
}


def plugin(folder, name, attribute="version = 1", fit="pass", begin="pass", each="pass", end="pass"):
    path = folder / f"{name.replace('-', '_')}.py"
    path.write_text(PLUGIN.format(name=name, attribute=attribute, fit=fit, begin=begin, each=each, end=end))
    return path


def failing(checks):
    return [check.name for check in checks if check.status == "fail"]


@pytest.fixture
def truth_file(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    path = tmp_path / "truth-report.safetensors"
    save_file({"masks": torch.ones(1)}, path)
    monkeypatch.setenv("TRUTH_HERE", str(path))


@pytest.mark.parametrize("name", sorted(registry.listings()))
def test_every_method_keeps_the_contract(name):
    checks = check_method(name)
    assert not [f"{check.name}: {check.detail}" for check in checks if check.status == "fail"]
    assert len(checks) == len(RULES)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_adapter_fails_the_right_check(name, tmp_path, truth_file):
    parts, expected = BAD[name]
    checks = check_method(plugin(tmp_path, f"bad-{name}", **parts))
    assert failing(checks) == [expected], checks


def test_a_good_adapter_passes_everything(tmp_path):
    checks = check_method(plugin(tmp_path, "good", fit="(view.scratch / 'x').write_text('x')"))
    assert {check.status for check in checks} == {"pass"}, checks
    assert suite.summary(checks) == f"{len(checks)} passed, 0 failed, 0 skipped"


@pytest.mark.parametrize("line", ["version: int = 2", "needs: ClassVar[tuple[str, ...]] = ()", "version: int"])
def test_class_attributes_may_be_annotated(line, tmp_path):
    name = f"typed-{len(line)}"
    path = plugin(tmp_path, name, attribute=line)
    path.write_text(path.read_text().replace("import os, random\n", "import os, random\nfrom typing import ClassVar\n"))
    assert not failing(check_method(path))
    assert registry.listings((path,))[name].version == (2 if line.endswith("2") else 1)


def test_an_error_is_shown_at_the_adapters_line(tmp_path):
    path = plugin(tmp_path, "stumbling", fit="torch.nn.Linear(2, 2)(torch.ones(3))")
    line = path.read_text().splitlines().index("        torch.nn.Linear(2, 2)(torch.ones(3))") + 1
    found = next(check for check in check_method(path) if check.name == "runs")
    assert found.status == "fail" and f"(stumbling.py:{line})" in found.detail


HEIR = """
from tdabench.methods import register
from tdabench.methods.pixel import Pixel


@register("heir")
class Heir(Pixel):
    \"\"\"A pixel method whose similarity is none.\"\"\"

    encoders = ("pixels",)
    citation = "raw pixel baseline of arXiv 2311.00500"
    presets = {"paper": Pixel.Params(), "quick": Pixel.Params(), "distance": Pixel.Params()}

    def _similarity(self, query, items):
        return None
"""


def test_an_error_in_inherited_code_is_shown_there(tmp_path):
    path = tmp_path / "heir.py"
    path.write_text(HEIR)
    found = next(check for check in check_method(path) if check.name == "runs")
    assert found.status == "fail" and "(pixel.py:" in found.detail


def test_checks_run_on_one_thread_as_cells_do(tmp_path):
    path, before = plugin(tmp_path, "threaded", fit="assert torch.get_num_threads() == 1"), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert not failing(check_method(path))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_method_of_arbitrary_sign_may_rank_copies_last(tmp_path):
    checks = check_method(plugin(tmp_path, "unsigned", attribute="sign = 'arbitrary'", end="out = -out"))
    assert not failing(checks)


def test_a_magnitude_is_not_negative(tmp_path):
    assert not failing(check_method(plugin(tmp_path, "size", attribute="sign = 'magnitude'", end="out = out.exp()")))


def test_an_unknown_sign_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"has the sign 'plus', which is none of .*'theory', 'arbitrary', 'magnitude'"):
        check_method(plugin(tmp_path, "positive", attribute="sign = 'plus'"))


def test_reading_queries_in_fit_is_said_in_one_line(tmp_path):
    path = plugin(tmp_path, "peeks", fit="view.problem.queries.x")
    found = next(check for check in check_method(path) if check.name == "runs")
    assert "view.problem.queries is out of reach: only attribute gets queries" in found.detail
    assert "(peeks.py:" in found.detail and "\n" not in found.detail


def test_an_estimate_that_holds_passes(tmp_path):
    attribute = ESTIMATE.format("sizes.n_items * (sizes.n_queries == 5) * sizes.slices // 2")
    assert not failing(check_method(plugin(tmp_path, "estimated", attribute, fit=LOSSES)))


def test_open_truth_and_members_are_made_up(tmp_path):
    attribute = "needs = ('open-truth', 'stored-scores')\n    members = ('trak', 'pixel:distance')"
    fit = "assert {*view.stored_scores} == {*self.members}; assert view.open_truth[0].shape == (64, 48)"
    assert not failing(check_method(plugin(tmp_path, "learned", attribute, fit)))


def test_every_need_that_a_problem_may_lack_is_looked_at(tmp_path):
    needs = ("gradients", "checkpoints", "cond", "recipe", "open-truth", "stored-scores")
    attribute = f"needs = {needs}; query_kinds = ('heldout', 'generated'); members = ('pixel',)"
    found = next(check for check in check_method(plugin(tmp_path, "needy", attribute)) if check.name == "support")
    assert found.detail == f"a problem without {', '.join(needs[1:])}, external gives a reason"


def test_the_scale_of_a_querys_scores_does_not_matter(tmp_path):
    scale = "torch.tensor([10.0 ** (sum(map(ord, name)) % 4) for name in queries.ids])"
    assert not failing(check_method(plugin(tmp_path, "scaled", end=f"out *= {scale}[:, None]")))


def test_a_method_that_the_twin_cannot_serve_is_skipped_with_a_reason(tmp_path):
    checks = {check.name: check for check in check_method(plugin(tmp_path, "encodes", "needs = ('encoder',)"))}
    assert checks["runs"].status == "skip" and "an image encoder" in checks["runs"].detail
    assert checks["scores"].status == "skip" and checks["support"].status == "pass"


def test_a_method_that_needs_conditions_gets_a_conditional_problem(tmp_path):
    fit = "assert view.train.cond and all(len(value) == 48 for value in view.train.cond.values())"
    pairs = "(torch.cdist(*(c[n].float().reshape(len(c[n]), -1) for c in (queries.cond, view.train.cond))) > 0)"
    end = f"out -= sum({pairs}.float() for n in queries.cond)"
    assert not failing(check_method(plugin(tmp_path, "labels", "needs = ('cond',)", fit, end=end)))


@pytest.mark.parametrize("end", ["out = out / (0.0 if view.train.cond else 1.0)", "assert not view.train.cond"])
def test_a_method_that_fails_on_another_kind_of_model_is_found(end, tmp_path):
    assert failing(check_method(plugin(tmp_path, f"narrow-{len(end)}", end=end))) == ["other models"]


def test_a_change_of_scores_is_the_largest_in_units_of_its_rows_spread():
    before = np.array([[1.0, -1.0, 1.0, -1.0], [20.0, -20.0, 20.0, -20.0], [3.0, 3.0, 3.0, 3.0]])
    after = before + np.array([[0.0, 0.5, -0.25, 0.0], [0.0, 0.0, 0.0, 5.0], [0.0, 0.0, 0.0, 0.0]])
    assert deviation(before, before) == 0.0 and deviation(after, before) == 0.5
    assert deviation(before + np.array([[0.0], [0.0], [1e-6]]), before) == np.inf


def test_what_an_adapter_spoilt_is_mended(tmp_path):
    before = effects._read({**effects._RANDOM, **effects._PROCESS})
    spoil = "os.chdir('/'); os.environ.pop('PATH'); torch.manual_seed(1); torch.set_default_dtype(torch.float64)"
    checks = check_method(plugin(tmp_path, "vandal", fit=spoil))
    assert failing(checks) == ["random state", "process state"]
    found = next(check.detail for check in checks if check.name == "process state")
    assert found == "changes environment (PATH), torch's default dtype, working directory"
    assert effects._read({**effects._RANDOM, **effects._PROCESS}) == before


def test_files_are_watched_during_checks_only(tmp_path):
    with effects.watched(tmp_path / "a", 0) as seen:
        pass
    (tmp_path / "x").write_text("x")
    assert seen.written == [] and effects._note is None


@pytest.mark.parametrize("entry", ["trak", "methods/trak.py"])
def test_a_method_is_found_by_name_and_by_file(entry):
    path = registry.__file__.replace("registry.py", "trak.py")
    listing, plugins = suite._find(path if entry.endswith(".py") else entry, ())
    assert listing.name == "trak" and plugins == ()


def test_input_that_cannot_be_checked_is_one_line(tmp_path):
    two = plugin(tmp_path, "first")
    two.write_text(two.read_text() + two.read_text().replace('"first"', '"second"'))
    empty, broken = tmp_path / "empty.py", plugin(tmp_path, "unimportable", fit="pass")
    empty.write_text("x = 1\n")
    broken.write_text("import no_such_module\n" + broken.read_text())
    for entry, message in (
        ("pixle", "did you mean 'pixel'"),
        (tmp_path / "none.py", "no file"),
        (two, "registers 2 methods"),
        (empty, "registers 0 methods"),
        (broken, "does not import"),
    ):
        with pytest.raises(UserError, match=message):
            check_method(entry)
    with pytest.raises(UserError, match="unknown preset"):
        check_method("pixel", preset="qiuck")
    assert check_method("pixel", preset="distance")[0].status == "pass"


def test_the_table_shows_every_check(tmp_path):
    checks = check_method(plugin(tmp_path, "shown", end="out = out[:, 1:]"))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(suite.render(checks))
    text = console.export_text()
    assert "[queries, items] is (1, 48)" in text and all(check.name in text for check in checks)
    assert suite.summary(checks) == "11 passed, 1 failed (scores), 8 skipped"


def leads_to(value, kinds, seen):
    """Say whether dataclass fields and containers lead from ``value`` to an instance of ``kinds``."""
    if id(value) in seen:
        return False
    seen.add(id(value))
    if isinstance(value, kinds):
        return True
    inner = [getattr(value, field.name) for field in fields(value)] if is_dataclass(value) else []
    inner += [*value.values()] if isinstance(value, dict) else [*value] if isinstance(value, list | tuple) else []
    return any(leads_to(part, kinds, seen) for part in inner)


def test_a_view_leads_to_no_truth(tmp_path):
    view = View(tiny_problem(), tmp_path)
    assert leads_to(view, (type(view.problem.queries),), set())
    assert not leads_to(view, (Truth, Assets), set())
    assert view.open_truth is None and not view.stored_scores


def test_the_twin_holds_copies_of_its_queries():
    problem = tiny_problem()
    planted = planted_ids(problem)
    assert len(planted) == N_PLANTED and problem.queries.kinds == ("heldout",) * 4 + ("generated",)
    for query, item in planted.items():
        assert torch.equal(problem.queries.x[problem.queries.ids.index(query)], problem.train.images[item])


def test_the_twin_is_trained_as_digits_is_and_handed_out_in_copies():
    problem, recipe = tiny_problem(), TWIN.recipe
    model, _ = train(recipe, problem.train, torch.arange(48), 0)
    assert problem.checkpoints == (0, 20, 40, 60)
    assert all(torch.equal(value, problem.weights[60][name]) for name, value in model.net.state_dict().items())
    problem.weights[60]["conv_in.bias"].add_(1)
    assert not torch.equal(tiny_problem().weights[60]["conv_in.bias"], problem.weights[60]["conv_in.bias"])


def test_a_problem_offers_what_is_asked_for():
    problem = tiny_problem()
    assert offering(problem, ()).checkpoints == (60,) and offering(problem, ()).recipe is None
    assert offering(problem, ("recipe",)).checkpoints == (0, 60)
    assert offering(problem, ("checkpoints",)).checkpoints == (20, 40, 60)


def test_the_backwards_view_covers_every_item_once(tmp_path):
    view = BackwardsView(tiny_problem(), tmp_path)
    parts = list(view.batches(16))
    assert sorted(i for part, _ in parts for i in range(48)[part]) == list(range(48))
    assert all(batch.ids == tuple(range(48)[part]) for part, batch in parts)
    assert len({len(batch) for _, batch in parts}) > 1 and all(len(batch) <= 2 for _, batch in view.batches(2))


@pytest.mark.parametrize(
    ("needs", "offered", "stored", "reason"),
    [
        ((), (), (), None),
        (("gradients", "recipe"), ("recipe",), (), None),
        (("gradients", "recipe"), (), (), "needs the training recipe, which this problem does not have"),
        (
            ("recipe", "checkpoints"),
            (),
            (),
            "needs the training recipe and checkpoints along training, which this problem does not have",
        ),
        (("cond",), (), (), "needs a conditional model, which this problem does not have"),
        (("trajectory",), (), (), None),
        (("open-truth",), (), (), "needs the open truth, which it is not given here"),
        (("stored-scores",), (), ("trak",), "needs the stored scores of pixel:distance, which are missing"),
        (("stored-scores",), (), ("trak", "pixel"), None),
    ],
)
def test_reasons_follow_from_needs(needs, offered, stored, reason):
    members = ("trak", "pixel:distance") if "stored-scores" in needs else ()
    listing = registry.Listing("m", "m", needs=needs, members=members)
    assert unsupported(listing, offering(tiny_problem(), offered), stored=stored) == reason


def test_a_kind_of_query_that_is_missing_is_a_reason():
    problem = tiny_problem()
    listing = registry.Listing("m", "m", query_kinds=("external",))
    assert unsupported(listing, problem) == "takes external queries only, of which this problem has none"
