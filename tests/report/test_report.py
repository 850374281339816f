import csv
import html
import logging
import re
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from synthetic import STUDY_GRID, STUDY_LOSSES, add_evaluation, make_sweep

from sweep.analysis.claims import Factor, Split
from sweep.analysis.findings import Findings
from sweep.analysis.quality import confusion, rank_correlation, wilson, worst_read
from sweep.analysis.tidy import cell_rows
from sweep.records.grid import Cell, Grid, Settings
from sweep.records.matching import arm
from sweep.records.record import CellFiles, Status
from sweep.records.sweep import MANIFEST, SAMPLES, Sweep, gather
from sweep.report import drawing, gallery, images, prose, remarks, summary
from sweep.report.drawing import apart, palette
from sweep.report.effects import effects
from sweep.report.page import NothingCompleted, build
from sweep.storage.store import Store

HOLES = {"DAE_1_5-s0": Status.FAILED, "DAE_3_5-s0": Status.DIVERGED, "DAE_5_5-s0": Status.MISSING}
ALWAYS = {"test_loss", "effects", "cost", "curves", "corruption", "example", "denoised"}
EVALUATED = {"reader", "classes", "confusion", "robustness", "extremes"}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def text_of(page: str) -> str:
    """The page without styles, scripts, images and tags."""
    page = re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", "", page))).replace("\N{NO-BREAK SPACE}", " ")


def gather_at(page: Path) -> Sweep:
    return gather(Store(page.parent.parent))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the text alone: a figure takes a good part of a second."""
    monkeypatch.setattr(drawing, "render", lambda figure: drawing.Drawing(b"png", b"svg"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the reference, with everything that one seed can have."""
    store = make_sweep(tmp_path_factory.mktemp("study"))
    add_evaluation(store)
    return build(gather(store))


def test_the_files_of_a_report(study: Path) -> None:
    drawn = [f"{name}.{kind}" for name in ALWAYS | EVALUATED for kind in ("png", "svg")]
    assert sorted(path.name for path in study.parent.iterdir()) == sorted(
        [*drawn, "history.csv", "index.html", "results.csv"]
    )


def test_the_page_is_self_contained(study: Path) -> None:
    page = study.read_text()
    references = re.findall(r"""(?:src|href|srcset|action|poster)\s*=\s*["']?([^"'\s>]{1,60})""", page)
    loaded = re.findall(r"""(?:src|srcset|poster)\s*=\s*["']?([^"'\s>]{1,60})""", page)
    assert loaded
    assert all(reference.startswith("data:image/") for reference in loaded)
    assert all(reference.startswith(("data:image/", "#", "../cells/")) for reference in references)
    assert not re.search(r"https?://|@import|url\(", re.sub(r'src="data:[^"]*"', "", page))
    assert len(page) < 3_000_000


def test_every_link_has_its_end(study: Path) -> None:
    page = study.read_text()
    anchors = re.findall(r'id="([^"]+)"', page)
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(anchors)
    files = re.findall(r'href="\.\./([^"]+)"', page)
    assert len(files) >= 3 * 9
    assert all((study.parent.parent / file).is_file() for file in files)
    assert {cell.key for cell in STUDY_GRID.cells} <= set(anchors)


def test_a_cell_shows_its_facts_log_and_curve_and_what_all_have_stands_once(study: Path) -> None:
    page = study.read_text()
    receipt = page[page.index('<details class="cell" id="DAE_5_13-s0">') :]
    receipt = receipt[: receipt.index("</details>")]
    assert "<dt>depth</dt><dd>5</dd>" in receipt
    assert page.count("<dt>lr</dt><dd>0.001</dd>") == 1, "under What was run"
    assert page.index("<dt>lr</dt>") < page.index('id="cells"')
    assert "DAE_5_13-s0: epoch 15 &lt;done&gt;" in receipt
    assert receipt.count("<polyline") == 2
    assert re.search(r'points="(\S+ ){14}\S+"', receipt), "a point an epoch"


def test_the_summary_has_three_short_sentences_with_numbers(study: Path) -> None:
    text = text_of(study.read_text())
    assert "9 of 9 cells completed: 9 architectures, 1 seed." in text
    # Means over latents 0.017277, 0.011533 and 0.010470; over depths 0.012120, 0.012707 and 0.014453.
    assert (
        "Depth Depth 3 has 33 % less error than depth 1; depth 5 has 9 % less error than depth 3 (means over latents)."
        in text
    )
    latents = "Latent 8 has 5 % more error than latent 13; latent 5 has 14 % more error than latent 8"
    assert f"Compression {latents} (means over depths)." in text
    assert "One seed each: sizes without certainty. dae-sweep run --dataset mnist --name study --seeds 0,1,2" in text
    assert "Going from latent 13 to 5 costs 0.00420 more at depth 1 than at depth 5 (one seed)." in text
    assert "Lowest test loss: DAE_5_13 with MSE 0.01009 (PSNR 19.96 dB)" in text
    assert "highest: DAE_1_5 with MSE 0.02012 (PSNR 16.96 dB); doing nothing gives 0.11630." in text


@pytest.mark.parametrize("depths", [(1,), (1, 3), (1, 3, 5), range(1, 8)], ids=lambda depths: f"depths {list(depths)}")
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)], ids=["one seed", "three seeds"])
@pytest.mark.parametrize("spread", [1e-6, 2e-3], ids=["sure", "unsure"])
def test_no_sentence_of_the_summary_is_long_or_says_more_than_there_is(
    tmp_path: Path, depths: tuple[int, ...], seeds: tuple[int, ...], spread: float
) -> None:
    store = make_sweep(tmp_path, Grid.product(tuple(depths), (13, 5), seeds), seed_sd=spread if len(seeds) > 1 else 0)
    for _, sentence in summary.summary(Findings.of(gather(store))):
        assert len(sentence.replace("\N{NO-BREAK SPACE}", " ").split()) <= 35, sentence
        assert all(float(number) <= 100 for number in re.findall(r"([\d.]+)\s% less", sentence)), sentence
        assert "verdict" not in sentence


def test_table_1_has_the_studys_facts_and_the_results(study: Path) -> None:
    text = text_of(study.read_text())
    row = re.search(r"DAE_5_13 0\.01009 1 of 1 19\.96 (\S+) (\S+) %\s?\[\S+ \S+\] 7\.91 (.*?) (?:DAE|doing)", text)
    assert row is not None
    assert row[3].strip() == "(4, 13, 13) 86.22 % 5 Conv2D + 5 ConvTranspose2d 24 17,669 2,963,584"
    assert "median filter 0.03800 14.20" in text
    assert "size 5" in text, "as tuned"


def test_what_is_not_there_is_left_out_with_what_to_run(tmp_path: Path, undrawn: None) -> None:
    page = build(gather(make_sweep(tmp_path)))
    assert {path.stem for path in page.parent.glob("*.svg")} == ALWAYS
    text = text_of(page.read_text())
    assert "Can the digits be read? (the study's future work, section 5.4). Not there yet: dae-sweep run " in text
    assert "dae-sweep run --dataset mnist --name study computes it" in text
    assert "Drawn from 4 depths on: dae-sweep run --dataset mnist --name study --depths 1..9 --latents 13" in text
    assert "--axis alpha=0.25,0.5,0.75" in text
    assert "SSIM" not in re.search(r"model test MSE.*?marks", text)[0]  # type: ignore[index]


def test_references_that_cannot_be_used_are_named(tmp_path: Path, undrawn: None) -> None:
    store = make_sweep(tmp_path)
    add_evaluation(store)
    store.write("references.json", b"{}")
    text = text_of(build(gather(store)).read_text())
    assert "references: references.json cannot be used" in text
    assert "Can the digits be read? (the study's future work, section 5.4). Not there yet" in text


def test_further_axes_have_a_figure_and_sections(tmp_path: Path, undrawn: None) -> None:
    grid = Grid.product((1, 3), (13, 5), (0, 1), {"alpha": (0.25, 0.75)}).union(Grid.product((1, 3), (13, 5), (0, 1)))
    store = make_sweep(tmp_path, grid)
    add_evaluation(store)
    page = build(gather(store))
    text = text_of(page.read_text())
    assert (page.parent / "facets.svg").exists()
    assert "24 of 24 cells completed: 4 architectures, 2 seeds." in text
    assert "Alpha 0.25 Test loss from 0.005" in text
    assert "Alpha 0.75 Test loss from 0.016" in text
    assert 'id="DAE_1_5-alpha0.75-s1"' in page.read_text()
    table = rows(page.parent / "results.csv")
    assert {row["alpha"] for row in table} == {"0.25", "0.5", "0.75"}


def test_an_arm_of_equal_parameters_has_its_sentence(tmp_path: Path, undrawn: None) -> None:
    grid = Grid.product((1, 3, 5), (13,), (0, 1))
    page = build(gather(make_sweep(tmp_path, grid.union(arm(grid, Settings())))))
    text = text_of(page.read_text())
    assert "With the width solved for each depth, so that all have 7,805 to 8,389 parameters: at latent 13" in text
    assert re.search(r"parameters: at latent 13, the test loss of depth 3 is 0\.0\d+ \(\d", text)
    assert "An arm of equal parameters was not run" not in text


def test_many_depths_say_where_depth_stops_paying(tmp_path: Path, undrawn: None) -> None:
    losses = {(depth, 13): loss for depth, loss in enumerate((0.02, 0.015, 0.012, 0.012, 0.0125), start=1)}
    store = make_sweep(tmp_path, Grid.product(range(1, 6), (13,), (0, 1, 2)), losses=losses, seed_sd=1e-5)
    text = text_of(build(gather(store)).read_text())
    assert re.search(r"The best depth is 3(, 4 or 5| or 4) \(95 %\): 1(, 2 and 5| and 2) are shown to be worse", text)
    assert "stops paying" not in text
    assert "Depth by depth" in text


def test_45_cells_stay_under_10_mb(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, Grid.product(range(1, 6), (13, 8, 5), (0, 1, 2)))
    add_evaluation(store)
    page = build(gather(store))
    assert (page.parent / "depth.svg").exists()
    assert page.stat().st_size < 10_000_000


def test_confounds_are_printed_beside_latent_effects(study: Path) -> None:
    text = text_of(study.read_text())
    assert "Depth 3, latent 13 / 8 / 5: receptive field 16 / 18 / 16 px, parameters 8,389 / 9,797 / 8,389" in text


def test_the_same_records_give_the_same_bytes(study: Path) -> None:
    before = {path.name: path.read_bytes() for path in study.parent.iterdir()}
    build(gather_at(study))
    assert {path.name: path.read_bytes() for path in study.parent.iterdir()} == before


@pytest.mark.usefixtures("undrawn")
def test_a_planted_failure_is_said_to_fail(tmp_path: Path) -> None:
    losses = STUDY_LOSSES | {(3, 8): 0.0108}
    text = text_of(build(gather(make_sweep(tmp_path, losses=losses))).read_text())
    assert "The sign holds in 8 of 9 pairs (5 of 6 adjacent)" in text
    assert "It fails for DAE_3_8 over DAE_3_13, \N{MINUS SIGN}0.00015 (\N{MINUS SIGN}1.4 %)" in text


def test_holes_are_marked(tmp_path: Path) -> None:
    page = build(gather(make_sweep(tmp_path, statuses=HOLES)))
    text = text_of(page.read_text())
    assert "6 of 9 cells completed: 9 architectures, 1 seed (1 diverged, 1 failed, 1 missing)." in text
    assert "12,800 failed DAE_3_13" in text
    assert "Without a number: DAE_1_5, DAE_3_5, DAE_5_5." in text
    assert "RuntimeError: made to fail" in text
    svg = (page.parent / "test_loss.svg").read_text()
    assert all(f"<!-- {word} -->" in svg for word in ("failed", "diverged", "missing"))
    table = {row["key"]: row for row in rows(page.parent / "results.csv")}
    assert [row["key"] for row in table.values()] == [cell.key for cell in STUDY_GRID.cells]
    for key, status in HOLES.items():
        assert table[key]["status"] == status
        assert (table[key]["test_loss"], table[key]["test_psnr_db"], table[key]["test_sum"]) == ("", "", "")
    assert table["DAE_5_5-s0"]["parameters"] == ""


def test_the_tables_keep_the_names_and_numbers_of_records(study: Path) -> None:
    results_csv = rows(study.parent / "results.csv")
    names = {"key", "architecture", "depth", "latent", "seed", "status", "collapsed", "unconverged", "test_loss",
            "test_psnr_db", "ssim", "accuracy", "alpha", "parameters", "macs", "compression",
            "started_at", "finished_at", "error",
            "config.epochs", "config.lr", "dataset.fingerprint", "environment.torch"}  # fmt: skip
    assert names <= set(results_csv[0])
    record = gather_at(study).records["DAE_5_13-s0"]
    (row,) = [row for row in results_csv if row["key"] == record.key]
    assert float(row["test_loss"]) == record.test_loss
    history = [row for row in rows(study.parent / "history.csv") if row["key"] == record.key]
    assert [float(row["val_loss"]) for row in history] == [epoch.val_loss for epoch in record.history]
    assert [int(row["epoch"]) for row in history] == list(range(1, 16))


@pytest.mark.usefixtures("undrawn")
def test_collapsed_and_unconverged_cells_are_said(tmp_path: Path) -> None:
    flags = {"DAE_1_5-s0": "collapsed", "DAE_5_13-s0": "unconverged"}
    text = text_of(build(gather(make_sweep(tmp_path, flags=flags))).read_text())
    assert "1 of 9 cells collapsed. DAE_1_5-s0: no better than the mean training image" in text
    assert "1 of 9 cells unconverged. DAE_5_13-s0: validation loss still falls by over 1 % an epoch" in text
    assert "rests on unconverged" not in text
    assert "1 of 9 completed cells had not converged after 15 epochs" in text
    assert "Collapsed, no better than predicting the mean image: DAE_1_5-s0." in text
    assert "latent 5 and latent 8 are not compared: a cell collapsed" in text
    assert "Depth 3 and depth 1 are not compared: a cell collapsed; depth 5 has 9 % less error than depth 3" in text


@pytest.mark.usefixtures("undrawn")
def test_per_cent_are_of_the_loss_that_is_compared_with(tmp_path: Path) -> None:
    losses = {(depth, latent): by_depth * by_latent for depth, by_depth in ((1, 1.0), (3, 3.0), (5, 1.5))
              for latent, by_latent in ((13, 0.02), (8, 0.04), (5, 0.01))}  # fmt: skip
    text = text_of(build(gather(make_sweep(tmp_path, losses=losses))).read_text())
    assert "Depth 3 has 200 % more error than depth 1; depth 5 has 50 % less error than depth 3" in text
    assert "Latent 8 has 100 % more error than latent 13; latent 5 has 75 % less error than latent 8" in text


@pytest.mark.usefixtures("undrawn")
def test_networks_that_something_simpler_beats_are_said_to_be_so(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, losses={(depth, latent): 0.2 for depth in (1, 3, 5) for latent in (13, 8, 5)})
    text = text_of(build(gather(store)).read_text())
    assert "Every network is worse than doing nothing. The best one, DAE_1_13, has 0.20000, mean image 0.0674" in text
    assert "Doing nothing costs 0.11630, less than any bar." in text
    store = make_sweep(tmp_path / "other")
    assert "Every network is worse" not in text_of(build(gather(store)).read_text())


@pytest.mark.usefixtures("undrawn")
def test_pairs_have_no_other_strength_of_noise(tmp_path: Path) -> None:
    store = make_sweep(tmp_path)
    add_evaluation(store)
    manifest = gather(store).manifest
    store.write(MANIFEST, replace(manifest, dataset={**manifest.dataset, "pairs": True}).to_bytes())
    text = text_of(build(gather(store)).read_text())
    assert "All test tiles are of" not in text
    assert "Other strengths of noise (the study's section 2.2). Left out: the noise is part of the images" in text
    assert "trained at strength" not in text
    assert "--axis alpha" not in text
    assert not re.search(r"\balpha 0.5\b", text)


@pytest.mark.usefixtures("undrawn")
def test_tiles_of_few_images_are_said_to_be_so(tmp_path: Path) -> None:
    store = make_sweep(tmp_path)
    manifest = gather(store).manifest
    store.write(MANIFEST, replace(manifest, dataset={**manifest.dataset, "pictures": [3, 1, 1]}).to_bytes())
    assert "All test tiles are of 1 image. Intervals and verdicts are" in text_of(build(gather(store)).read_text())


@pytest.mark.usefixtures("undrawn")
def test_seeds_give_verdicts(tmp_path: Path) -> None:
    grid = Grid.product((1, 3), (13, 5), (0, 1, 2))
    text = text_of(build(gather(make_sweep(tmp_path, grid, seed_sd=1e-5))).read_text())
    assert "One seed" not in text
    assert "Depth 3 has 34 % less error than depth 1 (means over latents, 95 % intervals)." in text
    assert re.search(
        r"3 seeds each: 3 of 3 comparisons decided. At most 5 % chance of a false one in each claim.", text
    )
    assert "2 pairs: 2 supported" in text


@pytest.mark.usefixtures("undrawn")
def test_a_step_that_rests_on_one_seed_among_several_says_so(tmp_path: Path) -> None:
    grid = Grid.product((1, 3), (13, 5), (0, 1, 2)).union(Grid.product((5,), (13, 5), (0,)))
    text = text_of(build(gather(make_sweep(tmp_path, grid, seed_sd=1e-5))).read_text())
    assert (
        "Depth 3 has 34 % less error than depth 1; depth 5 has 12 % less error than depth 3 (one seed) (means" in text
    )


def test_what_is_open_and_what_has_no_verdict_are_drawn_apart(tmp_path: Path) -> None:
    grid = Grid.product((1, 3, 5), (13, 8, 5), (0, 1, 2))
    sweep = gather(make_sweep(tmp_path, grid, flags={"DAE_1_5-s0": "collapsed"}, seed_sd=8e-4))
    entries = effects(Findings.of(sweep)).legends[0].legend_handles
    drawn = {entry.get_label(): (entry.get_marker(), entry.get_linestyle()) for entry in entries}
    assert drawn.keys() == {"not resolved", "no verdict"}
    assert len(set(drawn.values())) == 2


@pytest.mark.usefixtures("undrawn")
def test_damaged_files_are_named_and_leave_holes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = make_sweep(tmp_path)
    build(gather(store))
    store.write(SAMPLES, b"not an archive")
    store.write(CellFiles("DAE_1_5-s0").test, b"")
    store.write(CellFiles("DAE_3_8-s0").record, b"{}")
    with caplog.at_level(logging.WARNING, logger="sweep.report.page"):
        page = build(gather(store))
    text = text_of(page.read_text())
    assert len(caplog.records) == 3
    assert "samples.npz: does not match its digest" in text
    assert "cells/DAE_1_5-s0/test.npz: does not match its digest" in text
    assert "cells/DAE_3_8: " not in text
    assert "cells/DAE_3_8-s0: record.json" in text
    assert "The smallest latent" not in text
    assert not (page.parent / "example.png").exists(), "a figure of arrays that are gone"
    assert (page.parent / "denoised.png").exists()
    table = {row["key"]: row for row in rows(page.parent / "results.csv")}
    assert table["DAE_1_5-s0"]["test_loss"] == "0.02012", "the record itself is sound"
    assert table["DAE_3_8-s0"]["status"] == "missing"


@pytest.mark.parametrize(
    "grid",
    [
        pytest.param(Grid.product((3,), (8,), (0,)), id="one cell"),
        pytest.param(Grid.product((1, 2, 3, 4), (8,), (0,)), id="depths only"),
        pytest.param(Grid.product((2,), (28, 14, 13, 5, 2, 1), (0, 1)), id="latents only"),
        pytest.param(
            Grid.of([*Grid.product((1, 3), (13,), (0,)).cells, *Grid.product((5,), (8, 5), (1, 2)).cells]), id="ragged"
        ),
    ],
)
def test_other_grids(grid: Grid, tmp_path: Path) -> None:
    store = make_sweep(tmp_path, grid)
    add_evaluation(store)
    page = build(gather(store))
    assert len(rows(page.parent / "results.csv")) == len(grid.cells)
    assert f"{len(grid.cells)} of {prose.counted(len(grid.cells), 'cell')} completed" in text_of(page.read_text())


def test_nothing_completed(tmp_path: Path) -> None:
    grid = Grid.product((1,), (13, 8), (0,))
    store = make_sweep(tmp_path, grid, statuses={"DAE_1_13-s0": Status.FAILED, "DAE_1_8-s0": Status.MISSING})
    with pytest.raises(NothingCompleted, match=r"no completed cell to report \(1 failed, 1 missing\)"):
        build(gather(store))
    assert not (tmp_path / "report").exists()


@pytest.mark.usefixtures("undrawn")
def test_what_a_user_gave_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    grid = Grid.of([Cell(depth=1, latent=13, seed=0), Cell(depth=1, latent=8, seed=0)])
    store = make_sweep(tmp_path, grid, name=evil, statuses={"DAE_1_8-s0": Status.FAILED}, errors={"DAE_1_8-s0": evil})
    page = build(gather(store)).read_text()
    assert evil not in page
    assert page.count("&lt;script&gt;alert(1)") > 3, "title, heading, error and what to run"


def test_a_model_that_always_gives_the_mean_image_is_named(tmp_path: Path) -> None:
    findings = Findings.of(gather(make_sweep(tmp_path, Grid.product((1,), (13, 5), (0,)))))
    sweep, results, arrays = findings.sweep, findings.results, findings.arrays
    constant = arrays.outputs["DAE_1_5-s0"]
    np.copyto(constant.class_means, arrays.samples.mean_image)  # type: ignore[union-attr]
    constant.to_mean[:] = 0
    assert remarks.spread_ratios(sweep, results[1], arrays) == (0.0, 0.0)
    assert "comes close to painting the average" in remarks.average_image(sweep, results, arrays)
    clean = arrays.outputs["DAE_1_13-s0"]
    np.copyto(clean.class_means, arrays.samples.class_means)  # type: ignore[union-attr]
    clean.to_mean[:] = sweep.manifest.baselines["mean_image"]
    assert remarks.spread_ratios(sweep, results[0], arrays) == pytest.approx((1.0, 1.0))


def test_sentences_agree_with_the_contrasts(tmp_path: Path) -> None:
    claim = Findings.of(gather(make_sweep(tmp_path))).claims[1]
    assert claim.factor is Factor.DEPTH
    assert prose.on_split(claim, Split.TEST).startswith("The sign holds in 9 of 9 pairs (6 of 6 adjacent)")


def test_the_reader_is_counted_right(tmp_path: Path) -> None:
    store = make_sweep(tmp_path, Grid.product((1,), (13, 5), (0,)), num_test=200)
    add_evaluation(store)
    findings = Findings.of(gather(store))
    labels = findings.references.labels  # type: ignore[union-attr]
    best, worst = (findings.qualities.by_key[key].read for key in ("DAE_1_13-s0", "DAE_1_5-s0"))
    np.copyto(best, labels)
    np.copyto(worst, labels)
    worst[labels == 3] = 8
    record = worst_read(findings)
    assert record is not None
    assert record.key == "DAE_1_5-s0"
    table = confusion(findings, record)
    assert table[3, 8] == 20
    assert table[3, 3] == 0
    assert np.trace(table) == 180
    accuracies = {row["key"]: row["accuracy"] for row in cell_rows(findings)}
    assert accuracies == {"DAE_1_13-s0": 1.0, "DAE_1_5-s0": 0.9}


def test_wilson_interval_and_rank_correlation_are_the_textbooks() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    theirs = scipy_stats.binomtest(97, 100).proportion_ci(method="wilson")
    assert wilson(97, 100) == pytest.approx((theirs.low, theirs.high), rel=1e-5)
    one, other = [1.0, 2.0, 2.0, 5.0, 3.0], [9.0, 8.0, 8.5, 1.0, 2.0]
    assert rank_correlation(one, other) == pytest.approx(scipy_stats.spearmanr(one, other).statistic)


def test_labels_are_moved_apart_and_kept_in_order() -> None:
    places = [0.5, 0.51, 0.1, 0.99]
    moved = apart(places, 0.1, 0.0, 1.0)
    assert all(abs(a - b) >= 0.1 - 1e-9 for a, b in combinations(moved, 2))
    assert sorted(range(4), key=moved.__getitem__) == sorted(range(4), key=places.__getitem__)
    assert moved[2] == 0.1
    assert max(moved) <= 1.0


@pytest.mark.parametrize("name", sorted(ALWAYS))
def test_every_exhibit_says_what_is_shown(name: str, tmp_path: Path) -> None:
    findings = Findings.of(gather(make_sweep(tmp_path)))
    (exhibit,) = [exhibit for exhibit in gallery.exhibits(findings) if exhibit.name == name]
    assert exhibit.caption.endswith(".")
    assert "study" in exhibit.answers
    assert images.best_shown(findings) is not None


@pytest.mark.parametrize("count", [1, 2, 3, 28])
def test_every_latent_has_a_colour_of_its_own(count: int) -> None:
    colours = palette(range(count, 0, -1))
    assert len(set(colours.values())) == count
    assert list(colours) == sorted(colours, reverse=True), "dark to light from the largest"


def test_a_report_needs_no_torch_and_writes_nothing_elsewhere(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    store = make_sweep(tmp_path / "sweep", Grid.product((1,), (13, 5), (0,)))
    program = (
        "import sys; from pathlib import Path;"
        "from sweep.records.sweep import gather; from sweep.storage.store import Store;"
        "from sweep.report.page import build; build(gather(Store(Path(sys.argv[1]))));"
        "print(sorted({'torch', 'ray', 'wandb', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(store.root)],
        cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
    assert list(home.rglob("*")) == []
