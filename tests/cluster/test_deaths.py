"""What people read of a death."""

from xelvad.pipeline.cluster.deaths import obituary, words_of


def test_the_words_are_one_line_without_colours_and_what_ray_says_of_all_deaths() -> None:
    of_creation = RuntimeError(
        "The actor died because of an error raised in its creation task, \x1b[36mray::Actor.__init__()\x1b[39m (pid=7)"
        "\n  No module named 'main'"
    )
    words = words_of(of_creation)
    assert words == "of an error raised in its creation task, ray::Actor.__init__() (pid=7) No module named 'main'"
    assert obituary(None, words, died=True, of_node=False) == f"a process that was being started died: {words}"
    of_memory = RuntimeError(
        "Worker exit type: SYSTEM_ERROR\nWorker exit detail: killed. Some common causes include: …"
    )
    assert words_of(of_memory) == "killed."
