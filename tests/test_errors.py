from denoisecli.errors import join_names


def test_long_lists_of_names_are_shortened():
    assert join_names(["b", "a"]) == "b, a"
    assert join_names([str(i) for i in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
