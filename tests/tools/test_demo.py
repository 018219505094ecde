"""One quick run of the demo on the real servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from example_apps import demo
from example_apps.demo import EXAMPLES, SCENARIOS


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.timeout(120)
def test_a_quick_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "new" / "demo.svg"
    exit_code = demo.main(["--quick", "--markdown", "--save", str(picture)])
    out, err = capsys.readouterr()
    assert exit_code == 0, out + err
    assert picture.read_text().startswith("<svg")
    cells = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if "|" in line
    ]
    by_row = {(line[0], line[1]): line for line in cells[2:]}
    assert {example.name for example in EXAMPLES} == {name for name, _ in by_row}
    for example in EXAMPLES:
        for scenario in SCENARIOS:
            line = by_row.get((example.name, scenario.client))
            if line is None:
                assert scenario.program is not None
                continue
            if scenario.cases[0].refused_with is not None:
                assert line[3] == "2/2"
                assert line[5].startswith("2 delivered")
    # The negative control: without the middleware these lose what the others deliver.
    for name in ("Flask on gunicorn", "Tornado"):
        assert by_row[name, "http.client"][2].startswith("0/2")
