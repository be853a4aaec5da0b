"""Metadata documents in the shapes that catalogues exchange, EML 2.2 and ISO 19139, and the tables they describe."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

__all__ = ["Dataset", "eml", "iso", "is_complete", "table", "title_of", "write"]

_END = "catalogue-end"
"""The last word of every document: one that is cut off, or mixed of two, does not parse or does not end with it."""


@dataclass(frozen=True)
class Dataset:
    """What a document says, with the table beside it, if it has one."""

    home: str
    number: int
    title: str
    abstract: str = "Measured by the project's own field stations."
    revision: int = 1
    table: bytes = b""

    @property
    def id(self) -> str:
        return f"{self.home}.{self.number}.{self.revision}"

    def revised(self, title: str) -> Dataset:
        return replace(self, title=title, revision=self.revision + 1)


def eml(dataset: Dataset) -> str:
    """As an ecological station writes it; the table is named with its size and digest."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<eml:eml xmlns:eml="https://eml.ecoinformatics.org/eml-2.2.0" packageId="{dataset.id}" system="{dataset.home}">
  <dataset>
    <title>{escape(dataset.title)}</title>
    <creator><organizationName>{dataset.home}</organizationName></creator>
    <pubDate>2026-11-21</pubDate>
    <abstract><para>{escape(dataset.abstract)}</para></abstract>
    <coverage>
      <geographicCoverage>
        <geographicDescription>Plot {dataset.number}</geographicDescription>
        <boundingCoordinates>
          <westBoundingCoordinate>10.1</westBoundingCoordinate><eastBoundingCoordinate>10.2</eastBoundingCoordinate>
          <northBoundingCoordinate>51.4</northBoundingCoordinate><southBoundingCoordinate>51.3</southBoundingCoordinate>
        </boundingCoordinates>
      </geographicCoverage>
    </coverage>
    <contact><organizationName>{dataset.home}</organizationName></contact>
    <dataTable>
      <entityName>{dataset.number}.csv</entityName>
      <physical>
        <objectName>{dataset.number}.csv</objectName>
        <size unit="bytes">{len(dataset.table)}</size>
        <authentication method="SHA-256">{hashlib.sha256(dataset.table).hexdigest()}</authentication>
      </physical>
    </dataTable>
  </dataset>
  <additionalMetadata><metadata>{_END}</metadata></additionalMetadata>
</eml:eml>
"""


def iso(dataset: Dataset) -> str:
    """As a geographic catalogue writes it."""

    def said(name: str, text: str) -> str:
        return f"<gmd:{name}><gco:CharacterString>{escape(text)}</gco:CharacterString></gmd:{name}>"

    return f"""<?xml version="1.0" encoding="UTF-8"?>
<gmd:MD_Metadata xmlns:gmd="http://www.isotc211.org/2005/gmd" xmlns:gco="http://www.isotc211.org/2005/gco">
  {said("fileIdentifier", dataset.id)}
  {said("language", "eng")}
  <gmd:contact><gmd:CI_ResponsibleParty>{said("organisationName", dataset.home)}</gmd:CI_ResponsibleParty></gmd:contact>
  <gmd:dateStamp><gco:Date>2026-11-21</gco:Date></gmd:dateStamp>
  {said("metadataStandardName", "ISO 19115:2003/19139")}
  <gmd:identificationInfo>
    <gmd:MD_DataIdentification>
      <gmd:citation><gmd:CI_Citation>{said("title", dataset.title)}</gmd:CI_Citation></gmd:citation>
      {said("abstract", dataset.abstract)}
    </gmd:MD_DataIdentification>
  </gmd:identificationInfo>
  <gmd:dataQualityInfo><gmd:DQ_DataQuality>{said("statement", _END)}</gmd:DQ_DataQuality></gmd:dataQualityInfo>
</gmd:MD_Metadata>
"""


def table(home: str, number: int) -> bytes:
    """A data file: observations of one plot or station."""
    return "".join(
        ["station,hour,value\n", *(f"{home}-{number},{hour},{(hour * number) % 97}\n" for hour in range(500))]
    ).encode()


def title_of(text: str) -> str:
    """The title that a document of either shape shows."""
    for element in ElementTree.fromstring(text.encode()).iter():  # noqa: S314  # the project's own documents
        if element.tag.rpartition("}")[2] == "title":
            return "".join(element.itertext()).strip()
    return ""


def is_complete(text: str) -> bool:
    """Whether a reader got one whole document."""
    try:
        words = list(ElementTree.fromstring(text.encode()).itertext())  # noqa: S314  # as above
    except ElementTree.ParseError:
        return False
    return any(word.strip() == _END for word in words[-4:])


def write(tree: Path, path: str, contents: str | bytes) -> None:
    """As a catalogue saves: a new file in the place of the old one."""
    file = tree / path
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.tmp")
    new.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    new.rename(file)
