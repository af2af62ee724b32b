from pathlib import Path

import pytest

from jobs.package import code_files
from jobs.secrets import is_secret_name, local_secrets, refuse_files_with_secrets, refuse_secret
from pipelines.errors import UserError


@pytest.mark.parametrize(
    "name",
    [
        "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD",
        "RAY_AUTH_TOKEN", "HF_TOKEN", "WANDB_API_KEY", "OPENAI_APIKEY", "AZURE_STORAGE_KEY", "api-key", "DB_PWD",
        "credentials",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "MIND_HOME", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "TOKENIZERS_PARALLELISM", "RAY_AUTH_TOKEN_PATH",
        "ticket", "AWS_SHARED_CREDENTIALS_FILE", "GOOGLE_APPLICATION_CREDENTIALS", "RAY_AUTH_MODE",
        "MONKEY", "keyword", "PWD", "OLDPWD", "MAX_TOKENS",
    ],
)  # fmt: skip
def test_names_of_no_secrets(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "text",
    [
        "http://ann:s3cret@host:5000",
        "https://host/?sig=s3cret",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "a1" * 18,
        "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSM",
        "-----BEGIN RSA PRIVATE KEY-----",
        "xx-planted-value-xx",
    ],
)
def test_values_of_secrets_are_refused_without_being_shown(text: str) -> None:
    with pytest.raises(UserError) as refused:
        refuse_secret("--set a.b", text, known=("planted-value",))
    assert "--set a.b" in str(refused.value)
    assert "environment of the nodes" in str(refused.value)
    assert text not in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("text", ["s3://bucket/home", "abfs://container@account/x", "http://10.0.0.1:5000", "0.5", ""])
def test_ordinary_values_pass(text: str) -> None:
    refuse_secret("--set a.b", text, known=("planted-value",), name="MLFLOW_TRACKING_URI")


def test_local_secrets_are_the_values_under_secret_names_and_the_token_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token-of-a-file\n")
    environment = {
        "A_TOKEN": "token-of-a-variable",
        "SHORT_TOKEN": "x",
        "KEY": str(tmp_path),
        "MIND_HOME": "s3://b/home",
    }
    found = local_secrets({**environment, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")})
    assert {"token-of-a-file", "token-of-a-variable"} <= set(found)
    assert not {"x", "s3://b/home", str(tmp_path), str(tmp_path / "token")} & set(found)


@pytest.mark.parametrize("line", ["KEY = 'AKIA" + "A" * 16 + "'", "token: own-secret-value"])
def test_a_secret_in_a_file_that_is_sent_is_refused_by_file_and_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "mind").mkdir()
    (tmp_path / "mind" / "notes.py").write_bytes(b"\xff\xfe\n# fine\n" + line.encode() + b"\n")
    with pytest.raises(UserError, match=r"^mind/notes\.py, line 3: holds a secret") as refused:
        refuse_files_with_secrets(code_files(tmp_path), ("own-secret-value",))
    assert line not in str(refused.value)


def test_the_code_itself_may_be_sent() -> None:
    refuse_files_with_secrets(code_files(), ())
