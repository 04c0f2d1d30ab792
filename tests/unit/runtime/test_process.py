"""What an operator reads when a service cannot start."""

import pytest
from pydantic_settings import SettingsConfigDict

from enxerto.runtime.process import EXIT_USAGE, run_service
from enxerto.runtime.settings import ServerSettings


class OwnSettings(ServerSettings):
    model_config = SettingsConfigDict(env_prefix="ENXERTO_TRIED_")


async def serve(_settings: OwnSettings) -> None:
    raise AssertionError


def test_every_bad_setting_is_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ENXERTO_TRIED_LOG_LEVEL", "verbose")
    monkeypatch.setenv("ENXERTO_TRIED_PORT", "70000")
    assert run_service("tried", OwnSettings, serve) == EXIT_USAGE
    assert capsys.readouterr().err.splitlines() == [
        "enxerto tried: ENXERTO_TRIED_PORT: Input should be less than or equal to 65535",
        "enxerto tried: ENXERTO_TRIED_LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'",
    ]


def test_a_log_level_may_be_in_either_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENXERTO_TRIED_LOG_LEVEL", "warning")
    assert OwnSettings().log_level == "WARNING"
