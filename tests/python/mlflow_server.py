"""A tracking server that keeps runs in memory and holds its callers to MLflow's REST API: methods, fields, types and limits
(https://mlflow.org/docs/latest/rest-api.html). track_test.py was also run against MLflow's own server."""
import http.server
import json
import pathlib
import re
import sys
import threading
import urllib.parse

NAME = re.compile(r"[\w\-. /]+")
METRIC = {"key": str, "value": (int, float), "timestamp": int, "step": int}
PAIR = {"key": str, "value": str}
FIELDS = {
    "experiments/create": {"name": str},
    "experiments/get-by-name": {"experiment_name": str},
    "runs/search": {"experiment_ids": [str], "filter": str, "max_results": int},
    "runs/create": {"experiment_id": str, "run_name": str, "start_time": int, "tags": [PAIR]},
    "runs/update": {"run_id": str, "status": str, "end_time": int},
    "runs/log-batch": {"run_id": str, "metrics": [METRIC], "params": [PAIR], "tags": [PAIR]},
}
OPTIONAL = {"end_time"}


class Refusal(Exception):
    """status of HTTP, error_code, message"""


def check(value, kind, where):
    if isinstance(kind, dict):
        if set(value) - set(kind) or set(kind) - set(value) - OPTIONAL:
            raise Refusal(400, "INVALID_PARAMETER_VALUE", f"{where}: the fields {set(value)}, expected {set(kind)}")
        for name, each in value.items():
            check(each, kind[name], f"{where}.{name}")
    elif isinstance(kind, list):
        for each in value:
            check(each, kind[0], where)
    elif not isinstance(value, kind) or isinstance(value, bool):
        raise Refusal(400, "INVALID_PARAMETER_VALUE", f"{where}: {value!r}")


class MlflowServer(http.server.ThreadingHTTPServer):
    """experiments: {name: id}; runs: {id: facts}; failing: statuses to answer the next requests with, 0 for
    an answer that is cut off; token: what Authorization must be."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.experiments, self.runs, self.failing, self.token, self.complaints = {}, {}, [], None, []
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self):
        return "http://127.0.0.1:%d" % self.server_address[1]

    def stop(self):
        self.shutdown()
        self.thread.join()
        self.server_close()

    def answer(self, endpoint, fields):
        return getattr(self, re.sub(r"\W", "_", endpoint))(**fields)

    def experiments_create(self, name):
        if name in self.experiments:
            raise Refusal(400, "RESOURCE_ALREADY_EXISTS", name)
        self.experiments[name] = str(len(self.experiments) + 1)
        return {"experiment_id": self.experiments[name]}

    def experiments_get_by_name(self, experiment_name):
        if experiment_name not in self.experiments:
            raise Refusal(404, "RESOURCE_DOES_NOT_EXIST", f"no experiment {experiment_name}")
        return {"experiment": {"experiment_id": self.experiments[experiment_name], "name": experiment_name}}

    def runs_search(self, experiment_ids, filter, max_results):
        key, value = re.fullmatch(r"tags\.`([^`]+)` = '([^']*)'", filter).groups()
        found = [run for run in self.runs.values() if run["experiment_id"] in experiment_ids and run["tags"].get(key) == value]
        return {"runs": [shown(run) for run in found[:max_results]]} if found else {}

    def runs_create(self, experiment_id, run_name, start_time, tags):
        run = {"run_id": f"r{len(self.runs)}", "experiment_id": experiment_id, "name": run_name, "status": "RUNNING", "start_time": start_time,
               "tags": {tag["key"]: tag["value"] for tag in tags}, "params": {}, "metrics": []}
        self.runs[run["run_id"]] = run
        return {"run": shown(run)}

    def runs_update(self, run_id, status, end_time=None):
        if status not in ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"):
            raise Refusal(400, "INVALID_PARAMETER_VALUE", status)
        self.runs[run_id].update(status=status, end_time=end_time)
        return {"run_info": {"run_id": run_id}}

    def runs_log_batch(self, run_id, metrics, params, tags):
        if len(metrics) > 1000 or len(params) > 100 or len(tags) > 100 or len(metrics) + len(params) + len(tags) > 1000:
            raise Refusal(400, "INVALID_PARAMETER_VALUE", "the batch is too large")
        run = self.runs[run_id]
        for each in *metrics, *params, *tags:
            if not NAME.fullmatch(each["key"]) or len(each["key"]) > 250 or len(str(each["value"])) > 500:
                raise Refusal(400, "INVALID_PARAMETER_VALUE", str(each))
        for param in params:
            if run["params"].setdefault(param["key"], param["value"]) != param["value"]:
                raise Refusal(400, "INVALID_PARAMETER_VALUE", f"a parameter cannot change: {param}")
        run["metrics"] += [(metric["key"], metric["step"], metric["timestamp"], metric["value"]) for metric in metrics]
        run["tags"].update((tag["key"], tag["value"]) for tag in tags)
        return {}


def shown(run):
    tags = [{"key": key, "value": value} for key, value in run["tags"].items()]
    return {"info": {key: run[key] for key in ("run_id", "experiment_id", "status", "start_time")}, "data": {"tags": tags}}


class Handler(http.server.BaseHTTPRequestHandler):
    def handle_request(self, method, fields):
        path = urllib.parse.urlparse(self.path).path
        endpoint = path.removeprefix("/api/2.0/mlflow/")
        try:
            if self.server.failing:
                raise Refusal(self.server.failing.pop(0), "TEMPORARILY_UNAVAILABLE", "on purpose")
            if self.server.token not in (None, self.headers["Authorization"]):
                raise Refusal(401, "UNAUTHENTICATED", "who are you?")
            if endpoint not in FIELDS or method != ("GET" if "/get" in endpoint else "POST"):
                raise Refusal(404, "ENDPOINT_NOT_FOUND", f"{method} {path}")
            check(fields, FIELDS[endpoint], endpoint)
            self.reply(200, self.server.answer(endpoint, fields))
        except Refusal as refusal:
            status, code, message = refusal.args
            if status == 0:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")
                return
            if code in ("INVALID_PARAMETER_VALUE", "ENDPOINT_NOT_FOUND", "RESOURCE_ALREADY_EXISTS"):
                self.server.complaints.append(message)
            self.reply(status, {"error_code": code, "message": message})

    def reply(self, status, answer):
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.handle_request("GET", dict(urllib.parse.parse_qsl(urllib.parse.urlparse(self.path).query)))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if len(body) > 1 << 20 or not self.headers["Content-Type"].startswith("application/json"):
            self.server.complaints.append(f"{len(body)} bytes of {self.headers['Content-Type']}")
        self.handle_request("POST", json.loads(body))

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":  # mlflow_server.py FILE: runs until it is killed; FILE receives the URL
    pathlib.Path(sys.argv[1]).write_text(MlflowServer().url)
