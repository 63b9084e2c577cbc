"""python-telegram-bot reads what we take for updates, and speaks to our Telegram."""
import asyncio
import json
import os
import pathlib
import urllib.error
import urllib.request

from telegram import Bot, ReplyParameters, Update
from telegram.constants import UpdateType
from telegram.error import BadRequest, Conflict, InvalidToken

HOOK, API = os.environ["HOOK"], os.environ["API"]
TOKEN, SECRET, TESTDATA = os.environ["TOKEN"], os.environ["SECRET"], os.environ["TESTDATA"]


def check(what, found, expected):
    assert found == expected, f"{what}: {found}, not {expected}"
    print(f"python: {what}: {found}")


def post(update, secret):
    headers = {"Content-Type": "application/json", "X-Telegram-Bot-Api-Secret-Token": secret}
    request = urllib.request.Request(HOOK, data=update.to_json().encode(), headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def our_payloads_are_updates():
    kinds = set()
    for file in sorted(pathlib.Path(TESTDATA).glob("*.json")):
        told = json.loads(file.read_text())
        kind = next(name for name in told if name != "update_id")
        update = Update.de_json(told, None)
        assert getattr(update, kind) is not None and not getattr(update, kind).api_kwargs, file
        check(f"{file.stem} is an update, and taken", post(update, SECRET), 200)
        kinds.add(kind)
    assert kinds <= {kind.value for kind in UpdateType}, kinds
    check("another secret", post(update, SECRET + "x"), 401)


async def our_telegram_is_one():
    async with Bot(TOKEN, base_url=f"{API}/bot", base_file_url=f"{API}/file/bot") as bot:
        updates = await bot.get_updates(timeout=1)
        check("it polls what happens", [update.message.text for update in updates], ["Hello"])
        check("and no more", await bot.get_updates(offset=updates[-1].update_id + 1, timeout=1), ())
        assert await bot.set_webhook(HOOK, secret_token=SECRET, allowed_updates=["message"])
        check("the webhook", (await bot.get_webhook_info()).url, HOOK)
        try:
            await bot.get_updates(timeout=1)
            raise AssertionError("polled beside a webhook")
        except Conflict as error:
            check("polling beside a webhook", type(error).__name__, "Conflict")
        assert await bot.delete_webhook(drop_pending_updates=False)
        sent = await bot.send_message(7, "Hello", reply_parameters=ReplyParameters(message_id=1))
        check("our Telegram takes a message", (sent.chat.id, sent.text), (7, "Hello"))
        picture = b"\x89PNG\r\n\x1a\n a picture"
        await bot.send_photo(7, picture, caption="Look")
        await bot.send_document(7, picture, filename="größe.png")
        file = await bot.get_file("AgAC-1")
        check("a file", bytes(await file.download_as_bytearray()), picture)
        assert await bot.answer_callback_query("1")
        for what, text, chat in [("too long", "x" * 4097, 7), ("to nobody", "x", 404), ("empty", " ", 7)]:
            try:
                await bot.send_message(chat, text)
                raise AssertionError("our Telegram takes what Telegram refuses")
            except BadRequest as error:
                check(f"our Telegram refuses: {what}", type(error).__name__, "BadRequest")
    try:
        await Bot("1:another", base_url=f"{API}/bot").get_me()
        raise AssertionError("another token was taken")
    except InvalidToken as error:
        check("another token", type(error).__name__, "InvalidToken")


our_payloads_are_updates()
asyncio.run(our_telegram_is_one())
