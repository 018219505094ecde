// Java's HttpClient as a process: one job a line in, one answer out.
//
// Its sockets cannot be watched, so a reset that it swallows stays unseen. Whether a connection is
// used again is told by the sockets which the process has open.

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

public class JavaClient {
    static final byte[] LINE = System.getenv("MATRIX_LINE").getBytes(StandardCharsets.ISO_8859_1);

    /** The body, with the pauses of a slow link. */
    static class Body extends InputStream {
        private final long size;
        private final int piece;
        private final long pause;
        private long at;

        Body(long size, int piece, double pause) {
            this.size = size;
            this.piece = piece;
            this.pause = Math.round(pause * 1000);
        }

        @Override
        public int read() {
            byte[] one = new byte[1];
            return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
        }

        @Override
        public int read(byte[] into, int offset, int length) {
            if (at >= size) {
                return -1;
            }
            if (pause > 0 && at > 0 && at % piece == 0) {
                try {
                    Thread.sleep(pause);
                } catch (InterruptedException error) {
                    Thread.currentThread().interrupt();
                }
            }
            int count = (int) Math.min(Math.min(length, piece - at % piece), size - at);
            for (int i = 0; i < count; i++) {
                into[offset + i] = LINE[(int) ((at + i) % LINE.length)];
            }
            at += count;
            return count;
        }
    }

    static String field(String job, String name) {
        Matcher found =
            Pattern.compile("\"" + name + "\": *(\"([^\"]*)\"|[^,}]+)").matcher(job);
        if (!found.find()) {
            return "";
        }
        return found.group(2) != null ? found.group(2) : found.group(1).trim();
    }

    static String quoted(String text) {
        StringBuilder into = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                into.append('\\').append(c);
            } else {
                into.append(c < ' ' || c > '~' ? '?' : c);
            }
        }
        return into.append('"').toString();
    }

    static String told(HttpResponse<byte[]> response) throws Exception {
        StringBuilder digest = new StringBuilder();
        for (byte b : MessageDigest.getInstance("SHA-256").digest(response.body())) {
            digest.append(String.format("%02x", b));
        }
        return String.format(
            "{\"status\": %d, \"length\": %d, \"digest\": \"%s\"}",
            response.statusCode(), response.body().length, digest);
    }

    static String failed(Throwable error) {
        return "{\"error\": " + quoted(error.toString()) + "}";
    }

    static boolean isReset(Throwable error) {
        for (Throwable e = error; e != null; e = e.getCause()) {
            String text = String.valueOf(e.getMessage());
            if (text.contains("reset") || text.contains("Broken pipe")) {
                return true;
            }
        }
        return false;
    }

    static Set<String> sockets() {
        Set<String> found = new TreeSet<>();
        try (DirectoryStream<Path> all = Files.newDirectoryStream(Path.of("/proc/self/fd"))) {
            for (Path each : all) {
                try {
                    String target = Files.readSymbolicLink(each).toString();
                    if (target.startsWith("socket:")) {
                        found.add(target);
                    }
                } catch (IOException gone) {
                    // It was closed meanwhile.
                }
            }
        } catch (IOException elsewhere) {
            return null;
        }
        return found;
    }

    static String run(String job) throws Exception {
        int port = Integer.parseInt(field(job, "port"));
        long size = Long.parseLong(field(job, "size"));
        int piece = Integer.parseInt(field(job, "piece"));
        double pause = Double.parseDouble(field(job, "pause"));
        Duration limit =
            Duration.ofMillis(Math.round(1000 * Double.parseDouble(field(job, "timeout"))));
        String base = "http://127.0.0.1:" + port;
        boolean plain = !field(job, "client").contains("h2c");
        HttpClient client = HttpClient.newBuilder()
            .version(plain ? HttpClient.Version.HTTP_1_1 : HttpClient.Version.HTTP_2)
            .build();
        BodyPublisher body = BodyPublishers.ofInputStream(() -> new Body(size, piece, pause));
        if (field(job, "chunked").equals("false")) {
            body = BodyPublishers.fromPublisher(body, size);
        }
        HttpRequest.Builder upload =
            HttpRequest.newBuilder(URI.create(base + field(job, "path"))).POST(body).timeout(limit);
        if (field(job, "close").equals("true")) {
            upload.header("Connection", "close");
        }
        if (!field(job, "expect").equals("null")) {
            upload.expectContinue(true);
        }
        String first;
        try {
            first = told(client.send(upload.build(), BodyHandlers.ofByteArray()));
        } catch (Exception error) {
            String resets = isReset(error) ? "[\"told by the exception\"]" : "[]";
            return "{\"first\": " + failed(error) + ", \"resets\": " + resets + "}";
        }
        Set<String> before = sockets();
        String next;
        try {
            next = told(client.send(
                HttpRequest.newBuilder(URI.create(base + field(job, "next"))).timeout(limit).build(),
                BodyHandlers.ofByteArray()));
        } catch (Exception error) {
            next = failed(error);
        }
        Set<String> after = sockets();
        String reused =
            before == null || after == null ? "null" : String.valueOf(before.containsAll(after));
        return "{\"first\": " + first + ", \"resets\": [], \"next\": " + next
            + ", \"reused\": " + reused + "}";
    }

    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, true);
        String version = quoted(System.getProperty("java.version"));
        out.println("{\"versions\": {\"Java HttpClient\": " + version
            + ", \"Java HttpClient h2c\": " + version + "}, \"missing\": {}}");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            out.println(run(line));
        }
        System.exit(0);
    }
}
