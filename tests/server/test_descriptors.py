from impervious.server.descriptors import comments


def test_comments_stand_by_what_they_describe() -> None:
    found = comments()
    assert found["messaging.SendMessageRequest.msg"].startswith(
        "What to send, at most message.max_bytes: in JSON base64"
    )
    assert found["messaging.Messaging"] == "Sends application bytes to another node."
    assert found["messaging.Messaging.SendMessage"].startswith("Answers with the message id")
    assert all("\n" not in text for text in found.values())
