from tornado.web import Application, RequestHandler


class Index(RequestHandler):
    def get(self) -> None:
        self.finish("Hello\n")  # pyright: ignore[reportUnknownMemberType]


app = Application([("/", Index)])
