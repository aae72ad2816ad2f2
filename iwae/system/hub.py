"""Models on the Hugging Face Hub, by the package huggingface_hub: its cache, its token, its ``HF_ENDPOINT``.

hf://user/model            the file model.safetensors of the model repository, at its newest revision
hf://user/model@REVISION   at a branch, tag or commit
hf://user/model/FILE       another .safetensors file, also after a revision
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iwae.system import optional
from iwae.system.files import printable

SCHEME = "hf://"
FILE, SUFFIX = "model.safetensors", ".safetensors"
MAX_BYTES = 2**30  # of a file that is fetched
FORMS = "hf://USER/MODEL, hf://USER/MODEL@REVISION or either with /FILE.safetensors"


class HubError(RuntimeError):
    """A model cannot be fetched or pushed; the message names it and the reason."""


def fetch(address: str) -> Path:
    """The file at an address, in huggingface_hub's cache; downloaded unless it is there.

    Without a network it is the one that was downloaded last. Nothing is known of its content.

    Raises ValueError for what is no such address, HubError, and MissingError where huggingface_hub is not installed.
    """
    optional.require("loading from the Hugging Face Hub", "huggingface_hub")
    from huggingface_hub import hf_hub_download

    repo, revision, file = _parsed(address)
    what = f"{file} of {repo}" + (f" at {revision}" if revision else "")
    with _described(what):
        found = hf_hub_download(repo, file, revision=revision, library_name="iwae", dry_run=True)
        if found.file_size is None or found.file_size > MAX_BYTES:
            size = "an unknown number of" if found.file_size is None else f"{found.file_size:,}"
            raise HubError(f"{what} has {size} bytes; at most {MAX_BYTES:,} are fetched")
        if not found.will_download:
            return Path(found.local_path)
        return Path(hf_hub_download(repo, file, revision=revision, library_name="iwae"))


def check_push(repo: str) -> None:
    """Raises ValueError for what is no name of a model, HubError where there is no token to push with, and MissingError
    where huggingface_hub is not installed. Before the work of making the files."""
    optional.require("pushing to the Hugging Face Hub", "huggingface_hub")
    from huggingface_hub import get_token

    try:
        named = _parsed(SCHEME + repo) == (repo, None, FILE)
    except ValueError:
        named = False
    if not named:
        raise ValueError(f"a model on the Hub is named USER/MODEL, not {printable(repo)!r}")
    if not get_token():
        raise HubError(
            f"{repo} cannot be pushed without a token: call `hf auth login`, or set HF_TOKEN to one that may write"
        )


def push(repo: str, content: dict[str, bytes], message: str) -> tuple[str, str]:
    """Put files, by their names, into a model repository in one commit; (the commit's address, its hash).

    A repository that does not exist is made, public unless the account says otherwise. Other files in it stay.

    Raises as ``check_push`` does, and HubError.
    """
    check_push(repo)
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="iwae")
    with _described(repo):
        api.create_repo(repo, exist_ok=True)
        files = [CommitOperationAdd(name, data) for name, data in content.items()]
        commit = api.create_commit(repo, files, commit_message=message)
    return commit.commit_url, commit.oid


def _parsed(address: str) -> tuple[str, str | None, str]:
    """(repository, revision, file)."""
    from huggingface_hub import parse_hf_uri

    try:
        uri = parse_hf_uri(address)
    except ValueError:
        uri = None
    file = uri.path_in_repo or FILE if uri else ""
    if uri is None or uri.type != "model" or not file.endswith(SUFFIX):
        raise ValueError(f"{printable(address)!r} is not the address of a model on the Hub; give {FORMS}")
    return uri.id, uri.revision, file


@contextmanager
def _described(what: str) -> Iterator[None]:
    """Turn errors of huggingface_hub, and of the library that it uses for the network, into HubErrors."""
    from huggingface_hub import constants, errors

    try:
        yield
    except HubError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None  # nor is it in the cache
        status = getattr(getattr(cause or error, "response", None), "status_code", None)
        if isinstance(error, errors.GatedRepoError):
            reason = "its authors must grant access, to the account of your HF_TOKEN"
        elif isinstance(error, errors.RepositoryNotFoundError):
            reason = f"{constants.ENDPOINT} has no such repository, or it is private and HF_TOKEN gives no access"
        elif isinstance(error, errors.RevisionNotFoundError):
            reason = "there is no such revision"
        elif isinstance(error, errors.RemoteEntryNotFoundError):
            reason = "the repository holds no such file"
        elif status in (401, 403):
            reason = f"{constants.ENDPOINT} refuses this token"
        elif status:
            reason = f"{constants.ENDPOINT} answers with status {status}"
        elif isinstance(cause, errors.FileMetadataError):
            reason = f"{constants.ENDPOINT} does not answer as the Hub does"
        elif isinstance(error, errors.LocalEntryNotFoundError):
            reason = f"{constants.ENDPOINT} cannot be reached, and it is not in the cache"
        else:
            reason = printable(" ".join(str(error).split()) or type(error).__name__, 300)
        raise HubError(f"{what}: {reason}") from error
