from litestar import Litestar, get


@get("/", sync_to_thread=False)
def index() -> str:
    return "Hello\n"


app = Litestar([index])
