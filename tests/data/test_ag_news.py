import os

import pytest

from lib.data import DataUnavailable
from lib.data.ag_news import AG_NEWS_TOPICS, ag_news


def test_degenerate_missing_and_damaged(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path))
    monkeypatch.setenv("COMPANION_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataUnavailable, match=r"test\.csv"):
        ag_news()
    (tmp_path / "ag_news").mkdir()
    (tmp_path / "ag_news" / "test.csv").write_text('"1","a","b"\n')
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(DataUnavailable):
        ag_news()


@pytest.mark.data
@pytest.mark.skipif("COMPANION_DATA" not in os.environ, reason="no mirror folder")
def test_value_by_hand_first_text():
    news = ag_news()
    assert len(news) == 7600
    assert news[0][0].startswith("Fears for T N pension after talks. Unions representing workers")
    assert news[0][1] == "Business"
    assert {topic for _, topic in news} == set(AG_NEWS_TOPICS)
    assert not any("\\" in text for text, _ in news)
